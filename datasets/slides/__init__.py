"""Whole slides: readers, tissue, grids of patches, features."""
