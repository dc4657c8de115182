"""Lightning's data module for bags: one fold, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from ..data_module import ShardedDataModule
from ..loader import Draw, EvenShard, ImageLoader
from .bag import Bags, Fold
from .dataset import BagBatch, BagDataset, collate_bags

__all__ = ["BagData", "BagOrder"]


class BagOrder(Sampler[Draw]):
    """The training bags of one epoch, as given to one process.

    The bags of all processes, taken in turn, are one order that does not depend on their number; where they do not
    divide by the processes, the last are dropped, different ones in each epoch.

    Args:
        indices: of the bags in their set.
        seed: of the run.
        weights: of each bag, to be drawn with replacement; None uses every bag once.
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
        indices: Sequence[int],
        *,
        seed: int,
        weights: Sequence[float] | None = None,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        if len(indices) < world_size:
            raise ValueError(f"{len(indices)} training bags are too few for {world_size} processes; use fewer devices")
        self.indices = np.asarray(indices)
        self.probabilities = None if weights is None else np.asarray(weights) / np.sum(weights)
        self.seed, self.world_size, self.rank = seed, world_size, rank
        self.used = len(indices) // world_size * world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0; Lightning does so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.used // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.probabilities is None:
            order = rng.permutation(self.indices)
        else:
            order = rng.choice(self.indices, size=len(self.indices), p=self.probabilities)
        seeds = rng.integers(2**63, size=len(order))
        for turn in range(self.used)[self.rank :: self.world_size]:
            yield Draw(int(order[turn]), int(seeds[turn]))


class BagData(ShardedDataModule):
    """Batches of bags to train, validate and test a head on one fold.

    A batch is a `BagBatch`. The bags of a training step, and the instances drawn of each, depend on `seed` and the
    epoch alone. Validation and test bags come each once over all processes, in order, with all their instances.
    Construct the Trainer with `use_distributed_sampler=False`: the bags are shared out here.

    Args:
        bags: the set.
        fold: indices of its training, validation and test bags; without validation bags none are validated.
        batch_size: bags of one step of the optimiser, over all devices and accumulated batches.
        instances: of a bag drawn for a step of training: how many, or below 1 the share; None is all.
        weighted_sampling: draw training bags with replacement, all classes equally often.
        workers: processes that read, for each device; 0 reads in the main process.
        seed: of the order and of the drawn instances.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> from regard.datasets.bags import make_folds, open_bags
        >>> bags = open_bags("ucsb")
        >>> data = BagData(bags, make_folds(bags, folds=5, seed=0)[0], batch_size=4)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch.features.shape[0], batch.features.shape[2], batch.indices.shape
        (4, 708, torch.Size([4]))
    """

    def __init__(
        self,
        bags: Bags,
        fold: Fold,
        *,
        batch_size: int,
        instances: float | None = None,
        weighted_sampling: bool = False,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.bags, self.fold, self.instances, self.seed = bags, fold, instances, seed
        self.weights = self._balancing_weights() if weighted_sampling else None

    def train_dataloader(self) -> ImageLoader:
        """The training bags, in another order each epoch."""
        world_size, rank = self.world_size_and_rank
        dataset = BagDataset(self.bags, instances=self.instances, seed=self.seed)
        order = BagOrder(self.fold.train, seed=self.seed, weights=self.weights, world_size=world_size, rank=rank)
        return ImageLoader(dataset, sampler=order, batch_size=self.device_batch_size, **self._options())

    def val_dataloader(self) -> ImageLoader | list[ImageLoader]:
        """The validation bags, if there are any."""
        return self._measured(self.fold.val) if self.fold.val else []

    def test_dataloader(self) -> ImageLoader:
        """The test bags."""
        return self._measured(self.fold.test)

    def class_weights(self) -> list[float]:
        """For each class one over its share of the training bags, over the number of classes."""
        counts = self._class_counts()
        return (counts.sum() / (len(counts) * counts)).tolist()

    def _class_counts(self) -> Tensor:
        labels = torch.tensor([self.bags.bags[index].label for index in self.fold.train])
        return torch.bincount(labels, minlength=len(self.bags.classes))

    def _balancing_weights(self) -> list[float]:
        counts = self._class_counts().tolist()
        return [1 / counts[self.bags.bags[index].label or 0] for index in self.fold.train]

    def _measured(self, indices: Sequence[int]) -> ImageLoader:
        world_size, rank = self.world_size_and_rank
        size = self.device_batch_size if self.instances is None else 1
        shard = EvenShard(len(indices), batch_size=size, world_size=world_size, rank=rank)
        return ImageLoader(BagDataset(self.bags), batch_sampler=_Subset(indices, shard), **self._options())

    def _options(self) -> dict[str, Any]:
        return self.loader_options() | {"pin_memory": False, "collate_fn": _collate}


class _Subset(Sampler[list[int]]):
    """Batches of a shard of some bags, as indices in the whole set."""

    def __init__(self, indices: Sequence[int], shard: EvenShard) -> None:
        self.indices, self.shard = indices, shard

    def __len__(self) -> int:
        return len(self.shard)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.shard:
            yield [self.indices[position] for position in batch]


def _collate(samples: list[Any]) -> BagBatch:
    features, valid, targets, indices = collate_bags(samples)
    if isinstance(targets, tuple):  # survival
        targets = torch.stack([part.float() for part in targets], dim=1)
    return BagBatch(features, valid, targets, indices)
