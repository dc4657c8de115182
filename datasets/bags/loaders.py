"""Batches of bags: an order that depends on seed and epoch alone, shared out over processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ...heads.training import BagBatch
from ..loader import Draw, EvenShard, ImageLoader
from . import BagDataset, Bags, collate_bags

__all__ = ["BagOrder", "measure_loader", "train_loader"]


class BagOrder(Sampler[Draw]):
    """The training bags of one epoch, as one process sees them.

    The bags of all processes, taken in turn, are one order that does not depend on their number; where they do not
    divide by the processes, the last are left out, others in each epoch.

    Args:
        places: of the bags in their set.
        seed: of the run.
        weights: of each bag, to be drawn with replacement; None takes every bag once.
        world_size: processes.
        rank: this process, from 0.

    Raises:
        ValueError: fewer bags than processes.

    Example:
        >>> order = BagOrder([3, 5, 8], seed=0)
        >>> order.set_epoch(1)
        >>> sorted(draw.image for draw in order)
        [3, 5, 8]
    """

    def __init__(
        self,
        places: Sequence[int],
        *,
        seed: int,
        weights: Sequence[float] | None = None,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        if len(places) < world_size:
            raise ValueError(f"{len(places)} training bags are too few for {world_size} processes; take fewer devices")
        self.places = np.asarray(places)
        self.chances = None if weights is None else np.asarray(weights) / np.sum(weights)
        self.seed, self.world_size, self.rank = seed, world_size, rank
        self.used = len(places) // world_size * world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0; Lightning does so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.used // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.chances is None:
            order = rng.permutation(self.places)
        else:
            order = rng.choice(self.places, size=len(self.places), p=self.chances)
        seeds = rng.integers(2**63, size=len(order))
        for turn in range(self.used)[self.rank :: self.world_size]:
            yield Draw(int(order[turn]), int(seeds[turn]))


def train_loader(
    bags: Bags,
    places: Sequence[int],
    *,
    seed: int,
    batch_size: int,
    instances: float | None = None,
    weights: Sequence[float] | None = None,
    workers: int = 0,
    world_size: int = 1,
    rank: int = 0,
) -> ImageLoader:
    """The training bags, in another order each epoch.

    Args:
        bags: the set.
        places: of the training bags in it.
        seed: of order and drawn instances.
        batch_size: bags of one batch of this process.
        instances: of a bag drawn for a step: how many, or below 1 the share; None is all.
        weights: as `BagOrder` takes them.
        workers: processes that read.
        world_size: processes that train.
        rank: this one, from 0.
    """
    dataset = BagDataset(bags, instances=instances, seed=seed)
    order = BagOrder(places, seed=seed, weights=weights, world_size=world_size, rank=rank)
    return ImageLoader(dataset, sampler=order, batch_size=batch_size, **_reading(workers))


def measure_loader(
    bags: Bags, places: Sequence[int], *, batch_size: int, workers: int = 0, world_size: int = 1, rank: int = 0
) -> ImageLoader:
    """Bags as they are measured: each once over all processes, in order, with all their instances."""
    shard = EvenShard(len(places), batch_size=batch_size, world_size=world_size, rank=rank)
    batches = _Placed(places, shard)
    return ImageLoader(BagDataset(bags), batch_sampler=batches, **_reading(workers))


class _Placed(Sampler[list[int]]):
    """Batches of a shard, as places in the whole set."""

    def __init__(self, places: Sequence[int], shard: EvenShard) -> None:
        self.places, self.shard = places, shard

    def __len__(self) -> int:
        return len(self.shard)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.shard:
            yield [self.places[index] for index in batch]


def _reading(workers: int) -> dict[str, Any]:
    return {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": _collate}


def _collate(samples: list[Any]) -> BagBatch:
    features, valid, targets, places = collate_bags(samples)
    if isinstance(targets, tuple):  # survival
        targets = torch.stack([part.float() for part in targets], dim=1)
    return BagBatch(features, valid, targets, places)
