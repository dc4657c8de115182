"""`regard train`: one task a file or folder."""
