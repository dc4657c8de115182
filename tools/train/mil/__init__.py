"""`regard train mil`: multiple-instance heads compared on the same folds."""
