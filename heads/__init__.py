"""Heads: pooling and multiple-instance heads, one a file."""

__all__: list[str] = []
