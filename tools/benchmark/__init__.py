"""`regard benchmark`: time and memory, one subject a file."""
