"""Bags of instances with labels, the common form of all sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bag", "Bags", "Fold", "InMemoryInstances", "Instances"]


@dataclass(frozen=True)
class Bag:
    """Metadata of a bag.

    Attributes:
        id: its name; that of the slide.
        patient: the patient or case; the id if unknown.
        label: index of its class in `Bags.classes`.
        time: until the event or the end of the observation, in any unit.
        event: True if it happened, False if the observation ended before (censored).
    """

    id: str
    patient: str
    label: int | None = None
    time: float | None = None
    event: bool | None = None


@dataclass(frozen=True)
class Fold:
    """Indices of the bags to train on, to select the epoch on, and to test on."""

    train: list[int]
    val: list[int]
    test: list[int]


@runtime_checkable
class Instances(Protocol):
    """The instances of one bag in a file. It can be pickled, and opens the file at every call."""

    @property
    def path(self) -> str:
        """The file, for messages."""

    def shape(self) -> tuple[int, int]:
        """Return number of instances and feature width without reading them."""

    def read(self, rows: Int[np.ndarray, " rows"] | None = None) -> Float[Tensor, "instances width"]:
        """Read features in the stored type: all, or some rows in ascending order."""

    def coordinates(self) -> Int[Tensor, "instances 2"] | None:
        """Read positions, x and y in pixels of the slide's full resolution; None if unknown."""


@dataclass(frozen=True, eq=False)
class InMemoryInstances:
    """Instances in memory.

    Args:
        features: one row for each instance.
        path: description of their origin.

    Example:
        >>> InMemoryInstances(np.ones((3, 8), np.float32)).read().shape
        torch.Size([3, 8])
    """

    features: Float[np.ndarray, "instances width"]
    path: str = "memory"

    def shape(self) -> tuple[int, int]:
        """Number of instances and width."""
        return self.features.shape

    def read(self, rows: Int[np.ndarray, " rows"] | None = None) -> Float[Tensor, "instances width"]:
        """A copy of the features."""
        return torch.from_numpy(self.features.copy() if rows is None else self.features[rows])

    def coordinates(self) -> None:
        """Not known."""


class Bags:
    """Bags of instances, which are read on demand.

    Args:
        bags: metadata of each bag.
        instances: instances of each bag, in the same order.
        classes: names of the classes.
        name: name of the set.
        instance_labels: for each bag, which of its instances carry the label; known for rendered bags only.
        fold: predefined split of the set.

    Attributes:
        width: of every feature vector.
        fold: the predefined split, or None.

    Raises:
        ValueError: there are no bags, one is empty or cannot be read, or they differ in width; with slide and file.

    Example:
        >>> part = InMemoryInstances(np.ones((3, 8), np.float32))
        >>> bags = Bags([Bag("a", "a", 0), Bag("b", "b", 1)], [part, part], ["normal", "tumour"], name="toy")
        >>> bags
        Bags(2 bags, 6 instances, 8 wide, 2 classes, from toy)
        >>> bags.features(1).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        bags: Sequence[Bag],
        instances: Sequence[Instances],
        classes: Sequence[str],
        *,
        name: str,
        instance_labels: Sequence[Bool[np.ndarray, "..."]] | None = None,
        fold: Fold | None = None,
    ) -> None:
        if not bags:
            raise ValueError(f"{name} has no bags; give the folder that holds the features")
        self.bags = list(bags)
        self.classes = [str(label) for label in classes]
        self.name = name
        self.fold = fold
        self._instances = list(instances)
        self._truth = None if instance_labels is None else list(instance_labels)
        self._sizes = []
        self.width = 0
        for index, bag in enumerate(self.bags):
            with _naming(bag.id):
                size, width = self._instances[index].shape()
            if not size:
                raise ValueError(
                    f"slide {bag.id}: {self._instances[index].path} holds no instances (a slide without tissue?); "
                    "remove it from the table"
                )
            if index and width != self.width:
                raise ValueError(
                    f"slide {bag.id}: the features in {self._instances[index].path} are {width} wide, but those of "
                    f"{self.bags[0].id} in {self._instances[0].path} are {self.width}; "
                    "extract all slides with one encoder"
                )
            self.width = width
            self._sizes.append(size)

    def __len__(self) -> int:
        return len(self.bags)

    def __repr__(self) -> str:
        known = f"{len(self.classes)} classes, " if self.classes else ""
        return f"Bags({len(self)} bags, {sum(self._sizes)} instances, {self.width} wide, {known}from {self.name})"

    def size(self, index: int) -> int:
        """Number of instances of a bag; nothing is read."""
        return self._sizes[index]

    def path(self, index: int) -> str:
        """The file of a bag, for messages."""
        return self._instances[index].path

    def features(
        self, index: int, rows: Int[np.ndarray, " rows"] | None = None
    ) -> Float[Tensor, "instances {self.width}"]:
        """Read the features of a bag in the stored type, memory-mapped if the file allows.

        A mapped file is not copied, and writing to the tensor does not change the file.

        Args:
            index: which bag.
            rows: indices of instances, ascending; the others are not kept in memory. Default: all.

        Raises:
            ValueError: the file cannot be read, or it has changed, or a feature is infinite or not a number; with
                slide and file.
        """
        bag, source = self.bags[index], self._instances[index]
        with _naming(bag.id):
            features = source.read(rows)
            wanted = (self._sizes[index] if rows is None else len(rows), self.width)
            if features.shape != wanted:
                raise ValueError(f"{source.path} has changed since it was opened; start again")
            _check_finite(features, source.path, rows)
        return features

    def coordinates(self, index: int) -> Int[Tensor, "instances 2"] | None:
        """Read the positions of instances: x and y of the top left corner in pixels of the slide's full resolution.

        Raises:
            ValueError: the file cannot be read, or there is not one position for each instance; with slide and file.
        """
        with _naming(self.bags[index].id):
            found = self._instances[index].coordinates()
            if found is not None and found.shape != (self._sizes[index], 2):
                raise ValueError(
                    f"{self.path(index)} has coordinates of shape {tuple(found.shape)} for {self._sizes[index]} "
                    "instances; extract the features of this slide again"
                )
        return found

    def instance_labels(self, index: int) -> Bool[Tensor, " instances"] | None:
        """Which instances of a bag carry its label; known for rendered bags only."""
        return None if self._truth is None else torch.from_numpy(self._truth[index].copy())

    def subset(self, indices: Sequence[int]) -> Bags:
        """Select bags, in this order.

        Raises:
            ValueError: no bag is left.
        """
        if not len(indices):
            raise ValueError(f"a part of {self.name} has no bags; use fewer folds or a larger share")
        part = object.__new__(Bags)
        part.bags = [self.bags[index] for index in indices]
        part._instances = [self._instances[index] for index in indices]
        part._sizes = [self._sizes[index] for index in indices]
        part._truth = None if self._truth is None else [self._truth[index] for index in indices]
        part.classes, part.width, part.name, part.fold = self.classes, self.width, self.name, None
        return part


@contextmanager
def _naming(slide: str) -> Iterator[None]:
    """Add the slide to the message of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"slide {slide}: {error}") from error


def _check_finite(features: Tensor, path: str, rows: np.ndarray | None) -> None:
    low, high = torch.aminmax(features)  # one pass without a copy; NaN propagates
    if bool(torch.isfinite(low) & torch.isfinite(high)):
        return
    wrong = torch.cat([~torch.isfinite(part).all(dim=1) for part in features.split(4096)]).nonzero().flatten()
    first = int(wrong[0]) if rows is None else int(rows[int(wrong[0])])
    raise ValueError(
        f"{len(wrong)} of {len(features)} instances in {path} have features that are infinite or not numbers, the "
        f"first is instance {first}; extract the features of this slide again, in float32 if half precision overflowed"
    )
