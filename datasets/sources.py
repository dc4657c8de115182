"""Open labelled images by the name of a source or from a folder, split into train, val and test."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path

import numpy as np

from ..class_names import nearest
from .class_folders import find_splits, open_class_folders
from .hugging_face import is_saved_set, open_saved_set
from .idx import find_idx_files, open_idx_folder
from .label_table import TABLE_NAME, open_label_table
from .labelled_images import SPLITS, LabelledImages
from .splits import stratified_split

__all__ = ["SOURCES", "open_images"]

#: Name of a source -> module and function of this package.
SOURCES: dict[str, str] = {
    "digits": "digits:open_digits",
    "scenes": "scene_images:open_scene_images",
    "torchvision": "torchvision_sets:open_torchvision",
    "hf": "hugging_face:open_hugging_face",
}
_BARE = ("digits", "scenes")  # sources without options
_FORMS = "digits, scenes, torchvision:NAME, hf:NAME[:CONFIG], or a folder"
_LAYOUTS = (
    f"class folders (train/CLASS/*.jpg or CLASS/*.jpg), a table {TABLE_NAME}, MNIST files "
    "(train-images-idx3-ubyte[.gz] ...), or a set saved by Hugging Face"
)
_UNSPLIT_TEST_FRACTION = 0.1
_log = logging.getLogger(__name__)


def open_images(
    name_or_dir: str | Path,
    *,
    root: str | Path | None = None,
    val_fraction: float = 0.1,
    test_fraction: float | None = None,
    seed: int = 0,
    download: bool = False,
) -> dict[str, LabelledImages]:
    """Open a set of labelled images with all three splits.

    Missing splits are taken from "train", at random and stratified by class: `val_fraction` of it as "val",
    `test_fraction` as "test". If no test images are split off, "test" is the same object as "val", and a warning
    is logged: its numbers are then not an independent test of a model that was selected on "val".

    Args:
        name_or_dir: `digits`, `scenes`, `torchvision:NAME`, `hf:NAME[:CONFIG]`, the path of a folder (`./digits`
            for one that has the name of a source), or a CSV table. The layout of a folder is detected.
        root: folder of torchvision's files. Default: `data`.
        val_fraction: 0-1, for sets without their own "val".
        test_fraction: 0-1, for sets without their own "test". Default: 0.1 for sets without any
            split, otherwise 0.
        seed: of these splits.
        download: whether missing files may be downloaded.

    Returns:
        "train", "val" and "test", each with a description of its `origin`.

    Raises:
        ValueError: the name is unknown, or the folder has an unknown layout or is damaged.
        ImportError: a library for this source is not installed.

    Example:
        >>> parts = open_images("digits")
        >>> parts["val"]
        LabelledImages(180 images, 10 classes, from digits val)
    """
    found = _open(os.fspath(name_or_dir), root, download)
    train = found["train"]
    if test_fraction is None:
        test_fraction = 0.0 if "val" in found or "test" in found else _UNSPLIT_TEST_FRACTION
    counts = {}
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        if split in found or (split == "test" and not fraction):
            continue
        if not 0 < fraction < 1:
            raise ValueError(
                f"{split}_fraction is {fraction}, but {train.origin} has no {split!r} split; "
                "give a number between 0 and 1"
            )
        counts[split] = max(1, round(fraction * len(train)))
    keep = np.arange(len(train))
    for split, count in counts.items():
        kept, held = stratified_split(train.targets[keep], count, seed)
        found[split] = train.subset(keep[held], f"{count} of {len(train)} images of {train.origin}, seed {seed}")
        keep = keep[kept]
    if counts:
        found["train"] = train.subset(keep, f"{len(keep)} of {len(train)} images of {train.origin}")
    if "test" not in found:
        found["test"] = found["val"]
        _log.warning("%s has no test images: 'test' is 'val'; set test_fraction to split some off", train.origin)
    return {split: found[split] for split in SPLITS}


def _open(text: str, root: str | Path | None, download: bool) -> dict[str, LabelledImages]:
    name, colon, rest = text.partition(":")
    if name in SOURCES:
        if bool(colon) == (name in _BARE) or (colon and not rest):
            raise ValueError(f"cannot open {text!r}; expected {_FORMS}")
        module, _, function = f"{__package__}.{SOURCES[name]}".partition(":")
        opener = getattr(import_module(module), function)
        if name == "torchvision":
            return opener(rest, root=root, download=download)
        return opener(rest) if colon else opener()
    path = Path(text)
    if path.is_dir():
        return _open_folder(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return open_label_table(path.parent, path.name)
    kind = "is a file, but not a CSV table" if path.is_file() else "is neither a source nor a folder"
    raise ValueError(f"{text!r} {kind}; {nearest(name, SOURCES)}Expected {_FORMS}")


def _open_folder(folder: Path) -> dict[str, LabelledImages]:
    if is_saved_set(folder):
        return open_saved_set(folder)
    if (folder / TABLE_NAME).is_file():
        return open_label_table(folder)
    if find_idx_files(folder):
        return open_idx_folder(folder)
    visible = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not find_splits(folder) and not any((folder / name).is_dir() for name in visible):
        what = f"holds {', '.join(visible[:8])}{', ...' if len(visible) > 8 else ''}" if visible else "is empty"
        raise ValueError(f"{folder} {what}; expected {_LAYOUTS}")
    return open_class_folders(folder)
