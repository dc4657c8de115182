from .discovery import find_slides as find_slides
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
from .thumbnail import read_thumbnail as read_thumbnail
from .tissue import Tissue as Tissue
from .tissue import find_tissue as find_tissue
from .writing import write_slide as write_slide

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
    "read_thumbnail",
    "write_features",
    "write_grid",
    "write_regions",
    "write_slide",
]
