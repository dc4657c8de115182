"""Recipes: one YAML a recipe; its first line is the command that runs it."""
