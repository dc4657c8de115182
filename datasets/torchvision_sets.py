"""The classification sets of torchvision, by name: `torchvision:CIFAR10`."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..class_names import choices
from .labelled_images import LabelledImages

__all__ = ["TORCHVISION_SETS", "open_torchvision", "parse_options"]

# fmt: off
#: The sets of torchvision with one class per image.
TORCHVISION_SETS = (
    "CIFAR10", "CIFAR100", "CLEVRClassification", "Caltech101", "Caltech256", "Country211", "DTD",
    "EMNIST", "EuroSAT", "FER2013", "FGVCAircraft", "FakeData", "FashionMNIST", "Flowers102",
    "Food101", "GTSRB", "INaturalist", "ImageNet", "Imagenette", "KMNIST", "LFWPeople", "MNIST",
    "OxfordIIITPet", "PCAM", "Places365", "QMNIST", "RenderedSST2", "SEMEION", "STL10", "SUN397",
    "SVHN", "StanfordCars", "USPS",
)
# fmt: on

#: Our split -> what the argument `split` of a set may call it; the first that the set accepts is used.
_SPLIT_VALUES = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
_DOCUMENTS = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets"


def open_torchvision(name: str, *, root: str | Path | None = None, download: bool = False) -> dict[str, LabelledImages]:
    """Open a classification set of torchvision.

    Args:
        name: one of `TORCHVISION_SETS`; after a colon, arguments of its own: `EMNIST:split=letters`,
            `FakeData:size=20,image_size=(3, 8, 8),num_classes=4`.
        root: folder of the files. Default: `data` in the working directory.
        download: whether missing files may be downloaded.

    Returns:
        The splits that the set has; all images as "train" if it has none.

    Raises:
        ValueError: the set or an argument is unknown, or its files are missing and cannot be downloaded; the
            message gives what to put where.

    Example:
        >>> found = open_torchvision("FakeData:size=6,image_size=(3, 8, 8),num_classes=2")
        >>> found["train"]
        LabelledImages(6 images, 2 classes, from torchvision FakeData)
    """
    name, _, text = name.partition(":")
    if name not in TORCHVISION_SETS:
        more = "see TORCHVISION_SETS in regard.datasets.torchvision_sets"
        raise ValueError(f"torchvision has no classification set {name!r}; {choices(name, TORCHVISION_SETS, more)}")
    from torchvision import datasets

    cls = getattr(datasets, name)
    accepted = _arguments(cls)
    options = parse_options(text)
    for option in options:
        if option not in accepted:
            raise ValueError(f"torchvision {name} has no argument {option!r}; it has {', '.join(accepted)}")
    if "root" in accepted:
        options.setdefault("root", os.fspath(root or "data"))
    found = {}
    for split, arguments in _splits(name, accepted, options):
        if split in found:
            continue
        source = _open(cls, options, arguments, download and "download" in accepted)
        if source is not None and (images := _labelled(source, name, split)) is not None:
            found[split or "train"] = images
    return found


def parse_options(text: str) -> dict[str, Any]:
    """Read `key=value, ...` as Python keyword arguments; a bare word is a string.

    Raises:
        ValueError: the text has another form.

    Example:
        >>> parse_options("split=letters, size=(3, 8)")
        {'split': 'letters', 'size': (3, 8)}
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("expected key=value")
        options: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                raise ValueError("expected key=value")
            word = keyword.value
            options[keyword.arg] = word.id if isinstance(word, ast.Name) else ast.literal_eval(word)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the options {text!r}; write them like size=20,split=letters") from error
    return options


def _arguments(cls: type) -> list[str]:
    """List the parameters of the constructor; if it has `**kwargs`, also those of its parent."""
    names: list[str] = []
    for parent in cls.__mro__:
        if "__init__" not in vars(parent) or parent is object:
            continue
        parameters = inspect.signature(parent).parameters
        names += [n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD and n not in names]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return [
        name for name in names if name not in ("transform", "target_transform", "transforms", "download", "loader")
    ] + (["download"] if "download" in names else [])


def _splits(name: str, accepted: list[str], options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the splits to try, with the arguments that select each."""
    if "train" in accepted and "train" not in options:
        return [("train", {"train": True}), ("test", {"train": False})]
    if "split" in accepted and "split" not in options and name != "EMNIST":
        return [(split, {"split": value}) for split, values in _SPLIT_VALUES.items() for value in values]
    if name == "INaturalist" and "version" not in options:
        return [("train", {"version": "2021_train"}), ("val", {"version": "2021_valid"})]
    return [("", {})]


def _open(cls: type, options: dict[str, Any], tried: dict[str, Any], download: bool) -> Any:
    """Open a set of torchvision; None if it does not have the split."""
    name = cls.__name__
    arguments = options | tried
    try:
        try:
            return cls(**arguments)
        except (
            RuntimeError,
            OSError,
        ):  # files are missing; an intact set is not downloaded again
            if not download:
                raise
            return cls(**arguments, download=True)
    except (ValueError, TypeError) as error:
        if "split" in tried and "for argument split" in str(error):
            return None
        raise ValueError(f"torchvision {name} does not accept these arguments: {error}") from error
    except (RuntimeError, OSError) as error:
        root = Path(arguments.get("root", "data")).absolute()
        can_download = "download" in inspect.signature(cls).parameters or name in ("EMNIST", "QMNIST")
        if download:
            advice = f"The download failed; try again, or put the files into {root} yourself"
        elif can_download and name != "StanfordCars":
            advice = f"Allow the download, or put its files into {root}"
        else:
            advice = f"It cannot be downloaded automatically: get the files from its authors and put them into {root}"
        raise ValueError(f"{name} is not in {root}: {error} {advice}; see {_DOCUMENTS}.{name}.html") from error


def _labelled(source: Any, name: str, split: str) -> LabelledImages | None:
    targets = _targets(source)
    if targets is None:
        return None
    classes = list(getattr(source, "classes", None) or getattr(source, "categories", None) or [])
    if not all(isinstance(label, str) for label in classes) or len(classes) <= targets.max(initial=0):
        classes = [str(label) for label in range(int(targets.max(initial=0)) + 1)]
    if isinstance(source.__dict__.get("num_classes"), int):
        classes = [str(label) for label in range(source.num_classes)]
    return LabelledImages(_TorchvisionImages(source), targets, classes, origin=f"torchvision {name} {split}".strip())


def _targets(source: Any) -> np.ndarray | None:
    """Read the labels, without the images if the set keeps a list of labels that agrees with its items."""
    for attribute in _LABEL_ATTRIBUTES:
        values = getattr(source, attribute, None)
        if values is None or len(values) != len(source):
            continue
        if any(value is None for value in values):
            return None  # a split without labels
        labels = np.asarray(values)
        if labels.ndim == 1 and all(int(source[i][1]) == int(labels[i]) for i in {0, len(labels) - 1}):
            return labels.astype(np.int64)
    pairs = getattr(source, "_samples", None)
    if isinstance(pairs, list) and len(pairs) == len(source):
        second = [pair[1] for pair in pairs]
        return None if any(label is None for label in second) else np.asarray(second, dtype=np.int64)
    return np.asarray([int(source[index][1]) for index in range(len(source))], dtype=np.int64)


class _TorchvisionImages(Sequence[Any]):
    """The images of a set of torchvision, without their labels."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        return self.source[index][0]
