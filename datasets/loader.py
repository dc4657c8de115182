"""Loaders whose order and augmentation depend on the seed and the epoch alone.

Every draw of a training image has its own seed, derived from the seed of the run, the epoch and the image. So an
epoch has the same images for any number of workers and processes, after a restart, and whatever else uses the
global random generators, whose state is preserved.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from .image_reading import UnreadableImageError
from .labelled_images import LabelledImages

__all__ = ["Draw", "EpochOrder", "EvenShard", "ImageLoader", "TrainLoader", "seeded_random"]


_SPARE = np.random.MT19937(0)


class Draw(NamedTuple):
    """One image of an epoch.

    Attributes:
        image: its index in the set.
        seed: of its augmentation.
    """

    image: int
    seed: int


@contextlib.contextmanager
def seeded_random(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch's CPU within the block, then restore their states.

    Example:
        >>> before = random.getstate()
        >>> with seeded_random(3):
        ...     drawn = random.random()
        >>> random.getstate() == before
        True
    """
    python, numpy, cpu = random.getstate(), np.random.get_bit_generator(), torch.default_generator.get_state()  # type: ignore[attr-defined]
    # Replacing NumPy's generator is much faster than copying its state.
    np.random.set_bit_generator(_SPARE if numpy is not _SPARE else np.random.MT19937())  # type: ignore[attr-defined]
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the accelerators too
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_bit_generator(numpy)  # type: ignore[attr-defined]
        torch.default_generator.set_state(cpu)


class EpochOrder(Sampler[Draw]):
    """The order of the training images of one epoch, as given to one process.

    The images of all processes, interleaved, are one shuffled order that does not depend on their number.
    The last images that do not fill a batch are dropped, different ones in each epoch; a set that is smaller than a
    batch is used completely (as far as it is divisible by the processes).

    Args:
        images: number of images.
        batch_size: images of all processes for one step of the optimiser.
        seed: of the run.
        world_size: processes.
        rank: this process, from 0.

    Raises:
        ValueError: fewer images than processes.

    Example:
        >>> order = EpochOrder(5, batch_size=2, seed=0)
        >>> order.set_epoch(1)
        >>> len(order), len({draw.image for draw in order})
        (4, 4)
    """

    def __init__(self, images: int, *, batch_size: int, seed: int, world_size: int = 1, rank: int = 0) -> None:
        if images < world_size:
            raise ValueError(f"{images} training images are too few for {world_size} processes")
        unit = batch_size if images >= batch_size else world_size
        self.images = images
        self.used = images // unit * unit
        self.seed = seed
        self.world_size = world_size
        self.rank = rank
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0; called by Lightning."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.used // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.images)[: self.used]
        seeds = rng.integers(2**63, size=self.images)
        for index in order[self.rank :: self.world_size][self.skip :].tolist():
            yield Draw(index, int(seeds[index]))


class EvenShard(Sampler[list[int]]):
    """Evaluation batches of one process: every image once over all processes, with equal numbers of batches.

    Equal numbers of batches matter because models with batch statistics synchronise at every batch.
    The batches of a process differ in size by one at most.

    Args:
        images: number of images.
        batch_size: maximum images of a batch of this process.
        world_size: processes.
        rank: this process, from 0.

    Raises:
        ValueError: the images cannot be divided like that.

    Example:
        >>> [list(EvenShard(5, batch_size=2, world_size=2, rank=rank)) for rank in (0, 1)]
        [[[0, 2], [4]], [[1], [3]]]
    """

    def __init__(self, images: int, *, batch_size: int, world_size: int = 1, rank: int = 0) -> None:
        self.batches = math.ceil(math.ceil(images / world_size) / batch_size)
        if images // world_size < self.batches or not images:
            raise ValueError(
                f"{images} images to evaluate cannot be shared by {world_size} processes in batches of "
                f"{batch_size}; use larger batches or fewer processes"
            )
        self.shard = np.arange(rank, images, world_size)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        for part in np.array_split(self.shard, self.batches):
            yield part.tolist()


class ImageLoader(DataLoader[Any]):
    """A `DataLoader` of labelled images.

    It starts to read at the first batch and not when an iterator is created, because Lightning creates it before it
    sets the epoch. The error of an image that a worker cannot read is raised here unchanged, with its path.

    Args:
        dataset: what to load.
        options: of `DataLoader`.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        options.setdefault("collate_fn", _collate)
        options.setdefault("worker_init_fn", _quiet_worker)
        # Its own generator, else each epoch would draw from the global one.
        options.setdefault("generator", torch.Generator().manual_seed(0))
        source = _Drawn(dataset) if isinstance(dataset, LabelledImages) else dataset
        super().__init__(source, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return self._read()

    def _read(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if isinstance(batch, UnreadableImageError):
                raise batch
            yield batch


class TrainLoader(ImageLoader):
    """An `ImageLoader` that can resume within an epoch: its state is the epoch and the number of batches."""

    epoch = 0
    given = 0
    _resume: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        order = self.sampler
        if not isinstance(order, EpochOrder):  # Lightning's overfit_batches sets its own sampler
            yield from self._read()
            return
        resume, self._resume = self._resume, None
        self.epoch = order.epoch
        self.given = resume["batches"] if resume and resume["epoch"] == order.epoch else 0
        order.skip = self.given * int(self.batch_size or 1)
        for batch in self._read():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Position of the loader: `epoch` and `batches`."""
        return {"epoch": self.epoch, "batches": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from there, if the next epoch to be read is the same."""
        self._resume = dict(state)


class _Drawn(Dataset[Any]):
    """Images by `Draw`, with their own random numbers; an unreadable image is returned as its error."""

    def __init__(self, images: LabelledImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw | int) -> Any:
        try:
            if not isinstance(draw, Draw):
                return self.images[draw]
            with seeded_random(draw.seed):
                return self.images[draw.image]
        except UnreadableImageError as error:
            return error


def _collate(samples: list[Any]) -> Any:
    errors = [sample for sample in samples if isinstance(sample, UnreadableImageError)]
    return errors[0] if errors else default_collate(samples)


def _quiet_worker(worker: int) -> None:
    """Keep OpenCV, which albumentations uses, from starting threads in every worker."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)
