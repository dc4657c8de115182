"""The font of text on images, which covers several scripts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

__all__ = ["load_font"]


@cache
def load_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which matplotlib bundles: Latin, Greek, Cyrillic, Arabic and symbols.

    Args:
        size_px: of the font.
    """
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)
