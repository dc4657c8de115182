"""Bags: the features of slides, their table and their folds, and sets of bags that come with the package.

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bag import Bag as Bag
    from .bag import Bags as Bags
    from .bag import Fold as Fold
    from .dataset import BagDataset as BagDataset
    from .dataset import collate_bags as collate_bags
    from .fold_files import read_folds as read_folds
    from .fold_files import write_folds as write_folds
    from .folds import make_folds as make_folds
    from .sources import BAG_SETS as BAG_SETS
    from .sources import open_bags as open_bags

# What users may touch -> its file.
_FILES = {
    "BAG_SETS": "sources",
    "Bag": "bag",
    "BagDataset": "dataset",
    "Bags": "bag",
    "Fold": "bag",
    "collate_bags": "dataset",
    "make_folds": "folds",
    "open_bags": "sources",
    "read_folds": "fold_files",
    "write_folds": "fold_files",
}

__all__ = [
    "BAG_SETS",
    "Bag",
    "BagDataset",
    "Bags",
    "Fold",
    "collate_bags",
    "make_folds",
    "open_bags",
    "read_folds",
    "write_folds",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
