"""The report of an evaluation: data, markup, style and script of one HTML file."""
