"""`regard evaluate` and `regard score`: one task a file."""
