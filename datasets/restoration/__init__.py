"""Pictures to restore: pairs of spoilt and good ones, and degradations that make them.

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bicubic import Degradation as Degradation
    from .crops import TrainingCrops as TrainingCrops
    from .crops import WholePictures as WholePictures
    from .data import RestorationData as RestorationData
    from .degradations import DEGRADATIONS as DEGRADATIONS
    from .degradations import build_degradation as build_degradation
    from .imresize import resize as resize
    from .photographs import HELD_OUT as HELD_OUT
    from .photographs import PHOTOGRAPHS as PHOTOGRAPHS
    from .photographs import photograph as photograph
    from .pictures import open_pictures as open_pictures

# What users may touch -> its file.
_FILES = {
    "DEGRADATIONS": "degradations",
    "Degradation": "bicubic",
    "HELD_OUT": "photographs",
    "PHOTOGRAPHS": "photographs",
    "RestorationData": "data",
    "TrainingCrops": "crops",
    "WholePictures": "crops",
    "build_degradation": "degradations",
    "open_pictures": "pictures",
    "photograph": "photographs",
    "resize": "imresize",
}

__all__ = [
    "DEGRADATIONS",
    "HELD_OUT",
    "PHOTOGRAPHS",
    "Degradation",
    "RestorationData",
    "TrainingCrops",
    "WholePictures",
    "build_degradation",
    "open_pictures",
    "photograph",
    "resize",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
