"""Image sets of the Hugging Face hub, and folders saved by its library: `hf:NAME[:CONFIG]` or a path.

The library has the same name as this folder, `datasets`. It is imported in one place, `hugging_face_library`.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .class_folders import split_of
from .labelled_images import LabelledImages
from .torchvision_sets import parse_options

__all__ = ["hugging_face_library", "is_saved_set", "open_hugging_face", "open_saved_set"]


def hugging_face_library() -> ModuleType:
    """Import the library `datasets` of Hugging Face.

    Raises:
        ImportError: it is not installed, or another module has its name.
    """
    try:
        library: ModuleType | None = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        library = None
    if library is None or not hasattr(library, "load_from_disk"):  # or a folder of this name
        found = "" if library is None else f" ({library!r} is something else)"
        raise ImportError(
            f'sets of Hugging Face need its library, which is not found{found}; pip install "regard[huggingface]"'
        )
    return library


def is_saved_set(folder: str | Path) -> bool:
    """Check whether a folder was saved by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    folder = Path(folder)
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def open_hugging_face(name: str) -> dict[str, LabelledImages]:
    """Open a set of the hub; it is downloaded unless it is in the cache, or `HF_HUB_OFFLINE=1`.

    Args:
        name: `NAME` or `NAME:CONFIG`; for a set with several images or labels an item followed by
            `:image=COLUMN,label=COLUMN`, e.g. `cifar100:label=fine_label`. `NAME` may be a saved folder.

    Raises:
        ImportError: the library is missing.
        ValueError: the set is unknown, or its columns are not images and classes.
    """
    name, *rest = name.split(":")
    columns = parse_options(rest.pop()) if rest and "=" in rest[-1] else {}
    if is_saved_set(name):
        return open_saved_set(name, **columns)
    library = hugging_face_library()
    try:
        loaded = library.load_dataset(name, *rest)
    except Exception as error:  # the hub, the network, the cache and the set each have their own errors
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"cannot open {name!r} of Hugging Face: {reason}") from error
    return _open_all(loaded, f"hf:{name}", **columns)


def open_saved_set(folder: str | Path, **columns: str) -> dict[str, LabelledImages]:
    """Open a folder written by `save_to_disk`.

    Args:
        folder: the folder of a `DatasetDict` or a `Dataset`.
        columns: `image` and `label`, the names of the columns. Default: found by their types.

    Raises:
        ImportError: the library is missing.
        ValueError: the folder is not such a set, or its columns are not images and classes.
    """
    library = hugging_face_library()
    try:
        loaded = library.load_from_disk(str(folder))
    except Exception as error:  # missing or damaged files, in many ways
        raise ValueError(f"{folder} is not a set saved by Hugging Face: {error}") from error
    return _open_all(loaded, str(folder), **columns)


def _open_all(loaded: Any, origin: str, **columns: str) -> dict[str, LabelledImages]:
    parts = loaded if isinstance(loaded, dict) else {"train": loaded}
    found: dict[str, LabelledImages] = {}
    for name, part in parts.items():
        split = split_of(str(name)) or ("train" if len(parts) == 1 else None)
        if split is None:
            continue  # such as "unsupervised"
        if split in found:
            raise ValueError(f"{origin} has two splits named like {split!r}: {', '.join(map(str, parts))}")
        images = _labelled(part, f"{origin} {name}", **columns)
        if images is not None:
            found[split] = images
    if "train" not in found:
        raise ValueError(f"{origin} has no labelled split 'train'; it has {', '.join(map(str, parts)) or 'none'}")
    return found


def _labelled(part: Any, origin: str, image: str | None = None, label: str | None = None) -> LabelledImages | None:
    """Open one split; None if all its labels are hidden (-1)."""
    library = hugging_face_library()
    features = part.features
    image = _column(features, image, _is_image, ("image", "img"), "image", origin)
    label = _column(features, label, _is_label, ("label", "labels"), "label", origin)
    feature, rows = features[label], part.with_format(None)[label][:]
    if _item(feature) is not None:
        classes = _item(feature).names
        targets: Any = np.zeros((len(rows), len(classes)), dtype=np.float32)
        for index, row in enumerate(rows):
            targets[index, row] = 1
    elif hasattr(feature, "names"):
        classes = feature.names
        if any(row is None for row in rows):
            raise ValueError(f"{origin}: image {rows.index(None)} has no label")
        targets = np.asarray(rows, dtype=np.int64)
        if len(targets) and (targets == -1).all():
            return None
    encoded = part.select_columns([image]).cast_column(image, library.Image(decode=False)).with_format(None)
    return LabelledImages(_Encoded(encoded, image), targets, classes, origin=origin)


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_label(feature: Any) -> bool:
    return hasattr(feature, "names") or _item(feature) is not None


def _item(feature: Any) -> Any:
    """Return the feature of the items of a list of class labels; None for other features."""
    item = feature[0] if isinstance(feature, list) and len(feature) == 1 else getattr(feature, "feature", None)
    return item if hasattr(item, "names") else None


def _column(features: Any, requested: str | None, fits: Any, usual: tuple[str, ...], kind: str, origin: str) -> str:
    """Find the column of a kind: the requested one, the only one, or the one with a usual name."""
    fitting = [name for name, feature in features.items() if fits(feature)]
    if requested is not None:
        if requested not in fitting:
            raise ValueError(f"{origin} has no {kind} column {requested!r}; it has {', '.join(fitting) or 'none'}")
        return requested
    named = [name for name in usual if name in fitting]
    if len(fitting) == 1 or named:
        return named[0] if named else fitting[0]
    if fitting:
        raise ValueError(f"{origin} has several {kind} columns; choose one with {kind}=NAME: {', '.join(fitting)}")
    types = ", ".join(f"{name}: {type(feature).__name__}" for name, feature in features.items())
    needed = "Image" if kind == "image" else "ClassLabel, or a list of ClassLabel"
    raise ValueError(f"{origin} has no column of the type {needed}; it has {types}. Cast it with `cast_column`")


class _Encoded(Sequence[Any]):
    """Encoded images: open binary files or paths."""

    def __init__(self, part: Any, column: str) -> None:
        self.part = part
        self.column = column

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: Any) -> Any:
        item = self.part[index][self.column]
        if item is None:
            raise ValueError("the set has no image here")
        return io.BytesIO(item["bytes"]) if item["bytes"] is not None else item["path"]
