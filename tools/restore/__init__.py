"""`regard restore`: images of any size, restored tile by tile."""
