"""Images with labels, the common form of all sources."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .image_reading import UnreadableImageError, read_image, to_channels

__all__ = ["SPLITS", "IndexedView", "LabelledImages"]

#: Names of the splits.
SPLITS = ("train", "val", "test")


class IndexedView(Sequence[Any]):
    """A view of some items of a sequence.

    Args:
        items: anything with a length and items by number.
        indices: indices of the items, in order.

    Example:
        >>> list(IndexedView("attention", np.array([0, 3, 3])))
        ['a', 'e', 'e']
    """

    def __init__(self, items: Any, indices: Int[np.ndarray, " picked"]) -> None:
        self.items: Any = items
        self.indices: np.ndarray = indices
        if isinstance(items, IndexedView):
            self.items, self.indices = items.items, items.indices[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.items[int(self.indices[index])]


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Images that are read on demand, and their labels.

    An item is `(image, target)`. The image is a Pillow image, or what `transform` makes of it. The target is
    the class index, or a float row with ones at the classes (multi-hot) if the images have several labels.

    Args:
        images: a sequence of paths, open binary files, Pillow images, arrays of 8 bits (height, width[, 3]),
            or tensors of 8 bits (channels, height, width).
        targets: class indices, or a matrix of zeros and ones (image by class) for multi-label images.
        classes: names of the classes.
        channels: 1 for grey, 3 for RGB; images are converted.
        transform: what to do with the Pillow image; it must be picklable for worker processes.
        origin: description of where the images come from.
        names: names of the images in messages and tables. Default: its path, or its index in `images`.

    Attributes:
        targets: int64 (images,) or float32 (images, classes).
        multi_label: whether an image may have several labels.

    Raises:
        ValueError: the targets do not fit the images or the classes.

    Example:
        >>> dots = LabelledImages(np.zeros((2, 5, 4), np.uint8), [1, 0], ["cat", "dog"], channels=1)
        >>> image, target = dots[0]
        >>> image.size, dots.classes[target], dots.multi_label
        ((4, 5), 'dog', False)
    """

    def __init__(
        self,
        images: Any,
        targets: Any,
        classes: Sequence[str],
        *,
        channels: Literal[1, 3] = 3,
        transform: Callable[[Image.Image], Any] | None = None,
        origin: str = "",
        names: Sequence[str] | None = None,
    ) -> None:
        values = np.asarray(targets)
        self.images = images
        self.classes = [str(name) for name in classes]
        self.multi_label = values.ndim == 2
        self.targets = values.astype(np.float32 if self.multi_label else np.int64)
        self.channels = channels
        self.transform = transform
        self.origin = origin
        self.names = names
        self._check()

    def _check(self) -> None:
        images, classes = len(self.images), len(self.classes)
        if len(self.targets) != images:
            raise ValueError(f"there are {images} images but {len(self.targets)} targets")
        if self.multi_label and self.targets.shape[1] != classes:
            raise ValueError(f"the targets have {self.targets.shape[1]} columns but there are {classes} classes")
        if self.multi_label and not np.isin(self.targets, (0, 1)).all():
            raise ValueError("multi-label targets must be 0 or 1")
        if not self.multi_label and images and not 0 <= self.targets.min() <= self.targets.max() < classes:
            raise ValueError(
                f"the targets {self.targets.min()} to {self.targets.max()} do not fit {classes} classes, "
                f"which are numbered 0 to {classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int | Float[Tensor, " classes"]]:
        image = self.image(index)
        return (self.transform(image) if self.transform else image), self.target(index)

    def image(self, index: int) -> Image.Image:
        """The image alone, untransformed.

        Raises:
            UnreadableImageError: it cannot be read; the error has the path and the reason.
        """
        item = self.images[index]
        if isinstance(item, str | Path):
            return read_image(item, self.channels)
        try:
            if hasattr(item, "read"):
                return read_image(item, self.channels)
            if isinstance(item, Tensor):
                item = item.movedim(0, -1).numpy()
            if isinstance(item, np.ndarray):
                if item.dtype != np.uint8:
                    raise ValueError(f"its values are {item.dtype}, not uint8")
                item = Image.fromarray(item[..., 0] if item.ndim == 3 and item.shape[-1] == 1 else item)
            return to_channels(item, self.channels)
        except UnreadableImageError as error:
            raise UnreadableImageError(self.name(index), error.reason) from error
        except Exception as error:
            raise UnreadableImageError(self.name(index), str(error) or type(error).__name__) from error

    def target(self, index: int) -> int | Float[Tensor, " classes"]:
        """The label or the labels alone."""
        if self.multi_label:
            return torch.from_numpy(self.targets[index].copy())
        return int(self.targets[index])

    def name(self, index: int) -> str:
        """Name of an image: its path, or its origin and index."""
        if self.names is not None:
            return self.names[index]
        images: Any = self.images
        row = int(index)
        if isinstance(images, IndexedView):
            row = int(images.indices[index])
            images = images.items
        item = images[row] if isinstance(images, list | tuple) else None
        return os.fspath(item) if isinstance(item, str | Path) else f"{self.origin or 'image'}[{row}]"

    def subset(self, indices: Int[np.ndarray, " picked"], origin: str | None = None) -> LabelledImages:
        """Select images.

        Example:
            >>> dots = LabelledImages(np.zeros((3, 5, 4), np.uint8), [1, 0, 1], ["cat", "dog"])
            >>> dots.subset(np.array([1])).targets
            array([0])
        """
        part = copy.copy(self)
        part.images = IndexedView(self.images, indices)
        part.targets = self.targets[indices]
        part.names = None if self.names is None else IndexedView(self.names, indices)
        part.origin = self.origin if origin is None else origin
        return part

    def viewed(
        self,
        transform: Callable[[Image.Image], Any] | None = None,
        channels: Literal[1, 3] | None = None,
    ) -> LabelledImages:
        """Return the same images with another transform, and optionally another number of channels."""
        view = copy.copy(self)
        view.transform = transform
        view.channels = channels or self.channels
        return view

    def __repr__(self) -> str:
        kind = "labels" if self.multi_label else "classes"
        return f"LabelledImages({len(self)} images, {len(self.classes)} {kind}, from {self.origin or 'memory'})"
