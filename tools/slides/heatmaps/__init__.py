"""Heatmaps of a slide: from scores of patches to files."""
