"""Whole slides: readers, tissue, grids of patches, and files of features.

Nothing is imported before it is used; most of it needs the extra `wsi`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .feature_file import read_features as read_features
    from .feature_file import write_features as write_features
    from .geojson import Region as Region
    from .geojson import read_regions as read_regions
    from .geojson import write_regions as write_regions
    from .grid import Grid as Grid
    from .grid import build_grid as build_grid
    from .opening import open_slide as open_slide
    from .patch_file import read_grid as read_grid
    from .patch_file import write_grid as write_grid
    from .patches import PatchReader as PatchReader
    from .slide import Level as Level
    from .slide import Slide as Slide
    from .slide import UnreadableSlideError as UnreadableSlideError
    from .slide import UnreadableTileError as UnreadableTileError
    from .slide_files import find_slides as find_slides
    from .small_view import thumbnail as thumbnail
    from .tissue import Tissue as Tissue
    from .tissue import find_tissue as find_tissue
    from .writing import write_slide as write_slide

# What users may touch -> its file.
_FILES = {
    "Grid": "grid",
    "Level": "slide",
    "PatchReader": "patches",
    "Region": "geojson",
    "Slide": "slide",
    "Tissue": "tissue",
    "UnreadableSlideError": "slide",
    "UnreadableTileError": "slide",
    "build_grid": "grid",
    "find_slides": "slide_files",
    "find_tissue": "tissue",
    "open_slide": "opening",
    "read_features": "feature_file",
    "read_grid": "patch_file",
    "read_regions": "geojson",
    "thumbnail": "small_view",
    "write_features": "feature_file",
    "write_grid": "patch_file",
    "write_regions": "geojson",
    "write_slide": "writing",
}

__all__ = [
    "Grid",
    "Level",
    "PatchReader",
    "Region",
    "Slide",
    "Tissue",
    "UnreadableSlideError",
    "UnreadableTileError",
    "build_grid",
    "find_slides",
    "find_tissue",
    "open_slide",
    "read_features",
    "read_grid",
    "read_regions",
    "thumbnail",
    "write_features",
    "write_grid",
    "write_regions",
    "write_slide",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
