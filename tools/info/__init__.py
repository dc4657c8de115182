"""`regard list` and `regard doctor`: what there is."""
