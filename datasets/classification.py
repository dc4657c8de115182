"""Lightning's data module for image classification, with any source of images, resuming exactly."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from ..class_names import choices
from .data_module import ShardedDataModule, available_cores
from .image_reading import UnreadableImageError
from .labelled_images import SPLITS, LabelledImages
from .loader import EpochOrder, EvenShard, ImageLoader, TrainLoader
from .sources import open_images
from .transforms import eval_transform, mean_and_std, train_transform

__all__ = ["ClassificationData"]

_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
_FIXED = ("size", "channels", "mean", "std")
_log = logging.getLogger(__name__)


class ClassificationData(ShardedDataModule):
    """Batches of images and labels to train, validate and test a classifier.

    A batch is `(images, targets)`: float (batch, channels, height, width), and int64 (batch,) class indices,
    or float (batch, classes) zeros and ones if images have several labels.

    The images of a training step, and how they are augmented, depend on `seed` and the epoch alone: not on
    the number of processes or workers, not on a restart (even within an epoch), not on the global random
    generators. Construct the Trainer with `use_distributed_sampler=False`: the data is shared out here, and
    exactly so for evaluation.

    Args:
        data: what to open, see `open_images`: `digits`, `scenes`, `torchvision:CIFAR10`, `hf:NAME`, or a folder.
        image_size: height and width in px, or one number for both.
        channels: 1 for grey, 3 for RGB.
        mean: to normalise with, one value a channel, for pixels in 0-1. Default: ImageNet's.
        std: likewise.
        batch_size: images for one step of the optimiser, over all devices and accumulated batches.
        eval_batch_size: maximum images of a batch of one device in evaluation. Default: as in training.
        workers: processes that read images, for each device; 0 reads in the main process. Default: a
            share of the processor cores, at most 8.
        seed: of the order, the augmentation and the splits, 0 or more.
        augmentation: options of `train_transform`.
        preprocessing: options of `eval_transform`.
        val_fraction: see `open_images`.
        test_fraction: see `open_images`.
        root: see `open_images`.
        download: see `open_images`; done by `prepare_data`.
        skip_unreadable: try to read every image first, and skip those that cannot be read. Otherwise the first
            one ends the run with an `UnreadableImageError`.

    Attributes:
        splits: "train", "val" and "test", once set up.
        unreadable: the skipped images: split, path, reason.
        test_is_val: whether there are no test images, so that "test" is "val".

    Raises:
        ValueError: a value out of its range, an unknown option, or data that cannot be used.

    Example:
        >>> data = ClassificationData("digits", image_size=8, channels=1, batch_size=64)
        >>> data.setup("fit")
        >>> images, targets = next(iter(data.train_dataloader()))
        >>> images.shape, targets.shape, data.num_classes
        (torch.Size([64, 1, 8, 8]), torch.Size([64]), 10)
    """

    def __init__(
        self,
        data: str | Path,
        *,
        image_size: int | tuple[int, int] = 224,
        channels: Literal[1, 3] = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        workers: int | None = None,
        seed: int = 0,
        augmentation: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float | None = None,
        root: str | Path | None = None,
        download: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected at least 0")
        if eval_batch_size is not None and eval_batch_size < 1:
            raise ValueError(f"eval_batch_size is {eval_batch_size}, expected at least 1")
        self.data = data
        self.image_size = image_size
        self.channels = channels
        self.mean, self.std = mean_and_std(channels, mean, std)
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.skip_unreadable = skip_unreadable
        self.unreadable: list[tuple[str, str, str]] = []
        self.splits: dict[str, LabelledImages] = {}
        self._checked: set[str] = set()
        self._opening: dict[str, Any] = {
            "root": root,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "seed": seed,
        }
        self._download = download
        common: dict[str, Any] = {"channels": channels, "mean": self.mean, "std": self.std}
        self.train_transform = train_transform(
            image_size, **common, **_options(train_transform, augmentation, "augmentation")
        )
        self.eval_transform = eval_transform(
            image_size, **common, **_options(eval_transform, preprocessing, "preprocessing")
        )

    def prepare_data(self) -> None:
        """Download missing files, if allowed; Lightning calls it in one process of each machine."""
        if self._download:
            open_images(self.data, **self._opening, download=True)

    def setup(self, stage: str | None = None) -> None:
        """Open the images; with `skip_unreadable` try to read those of a stage.

        Args:
            stage: "fit", "validate" or "test". Default: all.
        """
        if not self.splits:
            self.splits = open_images(self.data, **self._opening)
        if self.skip_unreadable:
            for split in _STAGES.get(stage or "", SPLITS):
                self._skip_unreadable(split)

    def _skip_unreadable(self, split: str) -> None:
        if split in self._checked:
            return
        images = self.splits[split]
        twins = [name for name in SPLITS if self.splits[name] is images]  # "test" may be "val"
        self._checked.update(twins)
        with ThreadPoolExecutor(available_cores()) as pool:
            reasons = list(pool.map(lambda index: _read_error(images, index), range(len(images))))
        skipped = [(index, reason) for index, reason in enumerate(reasons) if reason is not None]
        if not skipped:
            return
        kept = np.array([index for index, reason in enumerate(reasons) if reason is None], dtype=np.int64)
        if not len(kept):
            raise ValueError(f"none of the {len(images)} images of {images.origin} can be read; {skipped[0][1]}")
        for index, reason in skipped:
            self.unreadable.append((split, images.name(index), reason))
        _log.warning("skipped %d of %d images of %s that cannot be read", len(skipped), len(images), images.origin)
        for name in twins:
            self.splits[name] = self.splits[twins[0]] if name != twins[0] else images.subset(kept)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, once set up."""
        return self._images("train").classes

    @property
    def num_classes(self) -> int:
        """How many classes there are, once set up."""
        return len(self.classes)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, once set up."""
        return self._images("train").multi_label

    @property
    def test_is_val(self) -> bool:
        """Whether "test" is "val" for want of test images, once set up."""
        return self._images("test") is self._images("val")

    def train_dataloader(self) -> DataLoader[Any]:
        """Load the augmented training images, in a new order each epoch."""
        world_size, rank = self.world_size_and_rank
        images = self._images("train").viewed(self.train_transform, self.channels)
        order = EpochOrder(len(images), batch_size=self.batch_size, seed=self.seed, world_size=world_size, rank=rank)
        return TrainLoader(images, sampler=order, batch_size=self.device_batch_size, **self.loader_options())

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation images, each once, in order."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the test images, each once, in order."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> DataLoader[Any]:
        """Load the images of a split for evaluation: each once, in order, without augmentation."""
        world_size, rank = self.world_size_and_rank
        images = self._images(split).viewed(self.eval_transform, self.channels)
        size = self.eval_batch_size or self.device_batch_size
        shard = EvenShard(len(images), batch_size=size, world_size=world_size, rank=rank)
        return ImageLoader(images, batch_sampler=shard, **self.loader_options())

    def _images(self, split: str) -> LabelledImages:
        if not self.splits:
            raise ValueError("the data is not open; call setup() first, as Lightning does")
        return self.splits[split]


def _options(build: Any, given: Mapping[str, Any] | None, setting: str) -> dict[str, Any]:
    """Check that a transform has all given options, and return them."""
    known = [name for name in inspect.signature(build).parameters if name not in _FIXED]
    for name in given or {}:
        if name not in known:
            raise ValueError(f"{setting} has no option {name!r}; {choices(name, known, 'see its documentation')}")
    return dict(given or {})


def _read_error(images: LabelledImages, index: int) -> str | None:
    """Return why an image cannot be read; None if it can."""
    try:
        images.image(index)
    except UnreadableImageError as error:
        return error.reason
    return None
