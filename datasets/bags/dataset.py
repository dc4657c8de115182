"""Bags for torch's loaders: as they are or some instances of each, and batches of them with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from ..loader import Draw
from .bag import Bags

__all__ = ["BagBatch", "BagDataset", "collate_bags"]

#: Label, or time and whether the event happened, or nothing.
Target = int | tuple[float, bool] | None


class BagBatch(NamedTuple):
    """Some bags, as a head is trained on them.

    Attributes:
        features: of the bags, padded to one length.
        valid: where instances are; None if the bags have one length.
        targets: class of each bag; for survival its time, and 1 for an event or 0 for censored.
        indices: of the bags in their set.
    """

    features: Float[Tensor, "bags instances dim"]
    valid: Bool[Tensor, "bags instances"] | None
    targets: Shaped[Tensor, "bags ..."]
    indices: Int[Tensor, " bags"]


class BagDataset(Dataset[tuple[Tensor, Target, int]]):
    """Bags as `(features, target, index)`.

    The target is the label, `(time, event)` for survival, or None if neither is known. The index is the position in
    `bags`, for coordinates and names.

    Which instances are drawn depends on the seed, the epoch and the bag alone. The epoch is set by `set_epoch`; or
    the sampler is `regard.datasets.loader.EpochOrder`, whose draws carry a seed that the dataset follows, as workers
    that outlive an epoch need it.

    Args:
        bags: what to hand out.
        instances: how many to draw of each bag, without repetition and in their order: a number from 1 up, or a share
            below 1 of all of them, rounded down but at least one. Default: all.
        seed: of the draws, 0 or more.

    Raises:
        ValueError: `instances` or `seed` is out of range.

    Example:
        >>> from .sources import open_bags
        >>> features, target, index = BagDataset(open_bags("ucsb"), instances=0.5)[3]
        >>> features.shape, target, index
        (torch.Size([15, 708]), 1, 3)
    """

    def __init__(self, bags: Bags, *, instances: int | float | None = None, seed: int = 0) -> None:
        if instances is not None and not (0 < instances < 1 or (instances >= 1 and instances == int(instances))):
            raise ValueError(f"instances is {instances}; expected a number from 1 up, or a share between 0 and 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}, it cannot be negative")
        self.bags = bags
        self.instances = instances
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, draw: Draw | int) -> tuple[Float[Tensor, "instances width"], Target, int]:
        index = draw.image if isinstance(draw, Draw) else int(draw)
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} bags, none has the number {index}")
        seed = [self.seed, self.epoch, index] if not isinstance(draw, Draw) else [self.seed, draw.seed]
        bag = self.bags.bags[index]
        target: Target = bag.label
        if bag.time is not None and bag.event is not None:
            target = (bag.time, bag.event)
        return self.bags.features(index, self._draw(self.bags.size(index), seed)), target, index

    def _draw(self, size: int, seed: list[int]) -> Int[np.ndarray, " rows"] | None:
        if self.instances is None:
            return None
        count = max(1, int(self.instances * size)) if self.instances < 1 else int(self.instances)
        if count >= size:
            return None
        return np.sort(np.random.default_rng(seed).choice(size, count, replace=False, shuffle=False))


def collate_bags(
    samples: Sequence[tuple[Float[Tensor, "_ width"], Target, int]],
) -> tuple[
    Float[Tensor, "bags instances width"],
    Bool[Tensor, "bags instances"] | None,
    Any,
    Int[Tensor, " bags"],
]:
    """Make a batch of samples of `BagDataset`; shorter bags are filled up with zeros.

    One bag alone is not copied, so that a mapped one stays so.

    Returns:
        Features; `valid`, True where an instance is there, or None if all bags are alike in size; targets: labels
        int64 (bags,), or times float32 (bags,) and events bool (bags,), or None if they are not known; indices.

    Example:
        >>> features, valid, labels, indices = collate_bags([(torch.ones(3, 8), 1, 0), (torch.ones(2, 8), 0, 7)])
        >>> features.shape, valid.sum(dim=1), labels
        (torch.Size([2, 3, 8]), tensor([3, 2]), tensor([1, 0]))
    """
    bags, targets, indices = zip(*samples, strict=True)
    sizes = [len(bag) for bag in bags]
    valid = None
    if len(bags) == 1:
        features = bags[0][None]
    elif min(sizes) == max(sizes):
        features = torch.stack(_alike(bags))
    else:
        features = torch.nn.utils.rnn.pad_sequence(_alike(bags), batch_first=True)
        valid = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    return features, valid, _targets(targets), torch.tensor(indices)


def _alike(bags: Sequence[Tensor]) -> list[Tensor]:
    """In one type, that of the most exact."""
    exact = bags[0].dtype
    for bag in bags[1:]:
        exact = torch.promote_types(exact, bag.dtype)
    return [bag.to(exact) for bag in bags]


def _targets(targets: Sequence[Target]) -> Any:
    if any(target is None for target in targets):
        return None
    if isinstance(targets[0], tuple):
        times, events = zip(*targets, strict=True)
        return torch.tensor(times, dtype=torch.float32), torch.tensor(events)
    return torch.tensor(targets)
