"""`regard ask`, `regard sinks` and `regard view`: look at what a model attends to."""
