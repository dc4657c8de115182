"""Class folders: `DIR/train/CLASS/*.jpg`, or `DIR/CLASS/*.jpg` alone."""

from __future__ import annotations

import os
from pathlib import Path

from .image_reading import image_suffixes
from .labelled_images import LabelledImages

__all__ = ["SPLIT_NAMES", "find_splits", "list_images", "open_class_folders", "split_of"]

#: Name of a folder, a column or a split of a set -> our name of the split.
SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> str | None:
    """Return the split that a name stands for, if any.

    Example:
        >>> split_of("Validation"), split_of("cats")
        ('val', None)
    """
    return SPLIT_NAMES.get(name.strip().lower())


def open_class_folders(folder: str | Path) -> dict[str, LabelledImages]:
    """Open images that lie in one folder a class.

    With `train` (and `val`, `valid` or `validation`, and `test`) in the folder, these are the splits, each
    with its class folders. Without `train`, the folders are the classes and all images are returned as
    "train". Folders are searched recursively; hidden files, and those that Pillow cannot read, are ignored.
    Classes and files are sorted by name.

    Args:
        folder: where the class folders, or `train`, lie.

    Returns:
        What was found, of "train", "val" and "test".

    Raises:
        ValueError: there is no folder or no image, a class of "train" has no images, there are fewer than two
            classes, or "train" lacks a class of "val" or "test".

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         (Path(folder) / name).mkdir()
        ...         Image.new("L", (4, 4)).save(Path(folder) / name / "1.png")
        ...     found = open_class_folders(folder)
        >>> found["train"].classes, found["train"].targets
        (['cat', 'dog'], array([0, 1]))
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    splits = find_splits(folder) or {"train": folder}
    if "train" not in splits:
        raise ValueError(f"{folder} has {', '.join(p.name for p in splits.values())} but no folder 'train' next to it")
    train = _class_images(splits["train"])
    if not train:
        raise ValueError(f"{splits['train']} has no class folders; expected {splits['train']}/CLASS/IMAGE")
    empty = [name for name, paths in train.items() if not paths]
    if len(empty) == len(train):
        raise ValueError(f"no folder in {splits['train']} has an image; looked into {_some(empty)}")
    if empty:
        raise ValueError(f"no image in {splits['train']} of {_some(empty)}; add images or remove the folder")
    classes = list(train)
    if len(classes) < 2:
        raise ValueError(
            f"{splits['train']} has one class only, {classes[0]!r}; there is nothing to classify. "
            "Expected one folder a class"
        )
    found = {"train": _labelled(train, classes, splits["train"])}
    for split in ("val", "test"):
        if split in splits:
            images = _class_images(splits[split])
            unknown = [name for name in images if name not in train]
            if unknown:
                raise ValueError(f"{splits[split]} has {_some(unknown)}, which {splits['train']} does not have")
            if not any(images.values()):
                raise ValueError(f"{splits[split]} has no images; add some or remove the folder")
            found[split] = _labelled(images, classes, splits[split])
    return found


def find_splits(folder: Path) -> dict[str, Path]:
    """Find the folders in `folder` that are named after a split.

    Raises:
        ValueError: two of them mean the same split.
    """
    splits: dict[str, Path] = {}
    for path in _visible(folder):
        split = split_of(path.name) if path.is_dir() else None
        if split in splits:
            raise ValueError(f"{splits[split]} and {path} are both the split {split!r}; remove or rename one")
        if split:
            splits[split] = path
    return splits


def list_images(folder: Path) -> list[str]:
    """List all image files under a folder, sorted by name; loops of links are followed once."""
    suffixes = image_suffixes()
    images: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        images += [
            os.path.join(parent, name)  # noqa: PTH118 - a million Path objects are slow
            for name in files
            if not _hidden(name) and os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122
        ]
    return sorted(images)


def _class_images(folder: Path) -> dict[str, list[str]]:
    return {path.name: list_images(path) for path in _visible(folder) if path.is_dir()}


def _labelled(images: dict[str, list[str]], classes: list[str], folder: Path) -> LabelledImages:
    number = {name: index for index, name in enumerate(classes)}
    paths = [path for name in images for path in images[name]]
    targets = [number[name] for name in images for _ in images[name]]
    return LabelledImages(paths, targets, classes, origin=str(folder))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not _hidden(path.name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"class {shown}" if len(names) == 1 else f"classes {shown}" + (", ..." if len(names) > 5 else "")
