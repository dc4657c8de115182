"""Parts of `regard slide`."""
