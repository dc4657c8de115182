"""`regard demo`: one demonstration a file."""
