"""Data: images with labels from many sources, their transforms, Lightning's data modules, and rendered scenes.

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .albumentations_list import AlbumentationsList as AlbumentationsList
    from .classification import ClassificationData as ClassificationData
    from .images import UnreadableImageError as UnreadableImageError
    from .images import read_image as read_image
    from .labelled_images import SPLITS as SPLITS
    from .labelled_images import LabelledImages as LabelledImages
    from .scenes import Scene as Scene
    from .scenes import SceneObject as SceneObject
    from .scenes import Scenes as Scenes
    from .sources import SOURCES as SOURCES
    from .sources import open_images as open_images
    from .splits import stratified_split as stratified_split
    from .transforms import eval_transform as eval_transform
    from .transforms import train_transform as train_transform

# What users may touch -> its file.
_FILES = {
    "SOURCES": "sources",
    "SPLITS": "labelled_images",
    "AlbumentationsList": "albumentations_list",
    "ClassificationData": "classification",
    "LabelledImages": "labelled_images",
    "Scene": "scenes",
    "SceneObject": "scenes",
    "Scenes": "scenes",
    "UnreadableImageError": "images",
    "eval_transform": "transforms",
    "open_images": "sources",
    "read_image": "images",
    "stratified_split": "splits",
    "train_transform": "transforms",
}

__all__ = [
    "SOURCES",
    "SPLITS",
    "AlbumentationsList",
    "ClassificationData",
    "LabelledImages",
    "Scene",
    "SceneObject",
    "Scenes",
    "UnreadableImageError",
    "eval_transform",
    "open_images",
    "read_image",
    "stratified_split",
    "train_transform",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
