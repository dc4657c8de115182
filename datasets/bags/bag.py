"""Bags of instances with labels: the one form in which every source of them is handed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bag", "Bags", "Fold", "HeldInstances", "Instances"]


@dataclass(frozen=True)
class Bag:
    """What is known of a bag but its instances.

    Attributes:
        id: its name; that of the slide.
        patient: whose it is, the case; the id where that is not known.
        label: place of its class in `Bags.classes`.
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
    """Places of the bags that are trained on, that choose the epoch, and that are tested on."""

    train: list[int]
    val: list[int]
    test: list[int]


@runtime_checkable
class Instances(Protocol):
    """Where the instances of one bag are. It can be pickled, and opens its file anew each time."""

    @property
    def path(self) -> str:
        """The file, for messages."""

    def shape(self) -> tuple[int, int]:
        """Number of instances and width, without reading them."""

    def read(self, rows: Int[np.ndarray, " rows"] | None = None) -> Float[Tensor, "instances width"]:
        """Their features in the stored type; of some rows only, which ascend, if told."""

    def coordinates(self) -> Int[Tensor, "instances 2"] | None:
        """Where they lie, x and y in pixels of the slide's full resolution, if that is known."""


@dataclass(frozen=True, eq=False)
class HeldInstances:
    """Instances in memory.

    Args:
        features: one row for each.
        path: where they come from, in words.

    Example:
        >>> HeldInstances(np.ones((3, 8), np.float32)).read().shape
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
    """Bags of instances, which are read when asked for.

    Args:
        bags: what is known of each.
        instances: the features of each, in the same order.
        classes: names of the classes.
        name: what to call the set.
        instance_labels: of each bag, which of its instances carry the label; known of rendered bags only.
        fold: the parts that the set itself is divided in.

    Attributes:
        width: of every feature vector.
        fold: None unless the set comes with a division.

    Raises:
        ValueError: there are no bags, one is empty or cannot be read, or they differ in width; with slide and file.

    Example:
        >>> part = HeldInstances(np.ones((3, 8), np.float32))
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
        for place, bag in enumerate(self.bags):
            with _Named(bag.id):
                size, width = self._instances[place].shape()
            if not size:
                raise ValueError(
                    f"slide {bag.id}: {self._instances[place].path} holds no instances (a slide without tissue?); "
                    "leave it out of the table"
                )
            if place and width != self.width:
                raise ValueError(
                    f"slide {bag.id}: the features in {self._instances[place].path} are {width} wide, but those of "
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
        """How many instances a bag has; nothing is read."""
        return self._sizes[index]

    def path(self, index: int) -> str:
        """The file of a bag, for messages."""
        return self._instances[index].path

    def features(
        self, index: int, rows: Int[np.ndarray, " rows"] | None = None
    ) -> Float[Tensor, "instances {self.width}"]:
        """The features of a bag in the type they are stored in, mapped into memory where the file allows.

        A mapped file is not copied, and what is written into the tensor does not reach it.

        Args:
            index: which bag.
            rows: which of its instances, ascending; nothing else is kept. Default: all.

        Raises:
            ValueError: the file cannot be read, or it has changed, or a feature is infinite or not a number; with
                slide and file.
        """
        bag, source = self.bags[index], self._instances[index]
        with _Named(bag.id):
            features = source.read(rows)
            wanted = (self._sizes[index] if rows is None else len(rows), self.width)
            if features.shape != wanted:
                raise ValueError(f"{source.path} has changed since it was opened; start again")
            _check_finite(features, source.path, rows)
        return features

    def coordinates(self, index: int) -> Int[Tensor, "instances 2"] | None:
        """Where the instances of a bag lie: x and y of the top left corner in pixels of the slide's full resolution.

        Raises:
            ValueError: the file cannot be read, or there are more or fewer than instances; with slide and file.
        """
        with _Named(self.bags[index].id):
            found = self._instances[index].coordinates()
            if found is not None and found.shape != (self._sizes[index], 2):
                raise ValueError(
                    f"{self.path(index)} has coordinates of shape {tuple(found.shape)} for {self._sizes[index]} "
                    "instances; extract the features of this slide again"
                )
        return found

    def instance_labels(self, index: int) -> Bool[Tensor, " instances"] | None:
        """Which instances of a bag carry its label, if that is known; so it is of rendered bags only."""
        return None if self._truth is None else torch.from_numpy(self._truth[index].copy())

    def subset(self, indices: Sequence[int]) -> Bags:
        """Some of the bags, in this order.

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


class _Named:
    """Errors within say which slide they are about."""

    def __init__(self, slide: str) -> None:
        self.slide = slide

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise ValueError(f"slide {self.slide}: {error}") from error


def _check_finite(features: Tensor, path: str, rows: np.ndarray | None) -> None:
    low, high = torch.aminmax(features)  # one pass without a copy; what is no number comes through
    if bool(torch.isfinite(low) & torch.isfinite(high)):
        return
    wrong = torch.cat([~torch.isfinite(part).all(dim=1) for part in features.split(4096)]).nonzero().flatten()
    first = int(wrong[0]) if rows is None else int(rows[int(wrong[0])])
    raise ValueError(
        f"{len(wrong)} of {len(features)} instances in {path} have features that are infinite or not numbers, the "
        f"first is instance {first}; extract the features of this slide again, in float32 if half precision overflowed"
    )
