"""Lightning's data module for image restoration: image pairs, or high-quality images degraded as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch.utils.data import DataLoader

from ..data_module import ShardedDataModule
from ..loader import EpochOrder, EvenShard, ImageLoader, TrainLoader
from .crops import TrainingCrops, WholeImages
from .decoded_cache import cached
from .degradations import build_degradation
from .image_pairs import SourceImage, check_sides, open_hq_images, pair_up

__all__ = ["RestorationData"]

ImageSources = Sequence[SourceImage] | Sequence[tuple[SourceImage, SourceImage]]


class RestorationData(ShardedDataModule):
    """Batches of low- and high-quality images, float (batch, channels, height, width) in 0-1: crops, or whole images.

    The crops of a training step depend on `seed` and the epoch alone. Whole images come one at a time.

    Args:
        data: high-quality images: a folder, or `photographs`; see `open_hq_images`.
        lq: folder of their low-quality partners; without it the images are degraded by `degradation`.
        val: high-quality images to validate and test on, as `data`; by default the held-out photographs, or every
            n-th of `data`.
        val_lq: folder of the low-quality partners of `val`.
        val_fraction: share of `data` that is held out if `val` is not given, 0-1.
        scale: side of high-quality images over that of low-quality ones.
        degradation: one of `DEGRADATIONS`.
        degradation_options: its options.
        patch_px: side of a low-quality crop.
        crops_per_epoch: crops of an epoch.
        batch_size: crops for one step of the optimiser, over all devices and accumulated batches.
        channels: 3 for colour, 1 for grey.
        shrink_factors: see `TrainingCrops`.
        shuffle_channels: see `TrainingCrops`.
        enlarge_small: see `TrainingCrops`.
        cached_images: decoded images that every worker keeps in memory.
        cache_dir: folder that keeps decoded images as files, from which crops are read without decoding.
        workers: processes that read, for each device; 0 reads in the main process. Default: a share of the cores.
        seed: of crops and random degradations.

    Attributes:
        train_images: images to train on, once set up.
        val_images: images to validate and test on, once set up.

    Raises:
        ValueError: a value out of its range, an unknown option, or data that cannot be used.

    Example:
        >>> data = RestorationData("photographs", scale=2, patch_px=16, crops_per_epoch=8, batch_size=4, workers=0)
        >>> data.setup()
        >>> lq, hq = next(iter(data.train_dataloader()))
        >>> lq.shape, hq.shape
        (torch.Size([4, 3, 16, 16]), torch.Size([4, 3, 32, 32]))
    """

    def __init__(
        self,
        data: str,
        *,
        lq: str | None = None,
        val: str | None = None,
        val_lq: str | None = None,
        val_fraction: float | int = 0.1,
        scale: int = 2,
        degradation: str = "bicubic",
        degradation_options: Mapping[str, Any] | None = None,
        patch_px: int = 64,
        crops_per_epoch: int = 16_000,
        batch_size: int = 32,
        channels: int = 3,
        shrink_factors: Sequence[float | int] = (1.0,),
        shuffle_channels: bool = False,
        enlarge_small: bool = False,
        cached_images: int = 64,
        cache_dir: str | None = None,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if val_lq is not None and val is None:
            raise ValueError("val_lq is given without val, its high-quality partners")
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels}; expected 3 (colour) or 1 (grey)")
        self.data, self.lq, self.val, self.val_lq = data, lq, val, val_lq
        self.val_fraction, self.cache_dir, self.seed = val_fraction, cache_dir, seed
        self.degradation = build_degradation(degradation, scale, degradation_options)
        self.common: dict[str, Any] = {"scale": scale, "channels": channels}
        self.crops: dict[str, Any] = {
            "count": crops_per_epoch,
            "patch_px": patch_px,
            "cached_images": cached_images,
            "shrink_factors": tuple(shrink_factors),
            "shuffle_channels": shuffle_channels,
            "enlarge_small": enlarge_small,
        }
        self.train_images: ImageSources = []
        self.val_images: ImageSources = []

    def setup(self, stage: str | None = None) -> None:
        """Find the images."""
        if self.train_images:
            return
        train = self._open(self.data, self.lq, "train")
        if self.val is not None:
            val = self._open(self.val, self.val_lq, "test")
        elif self.data == "photographs" and self.lq is None:
            val = self._open(self.data, None, "test")
        else:
            count = max(1, round(len(train) * self.val_fraction))
            if not 0 < self.val_fraction < 1 or count >= len(train):
                raise ValueError(
                    f"cannot hold out a share of {self.val_fraction} of {len(train)} images; give other images as val"
                )
            step = len(train) / count
            held_out = {int(index * step) for index in range(count)}
            val = [image for index, image in enumerate(train) if index in held_out]  # type: ignore[assignment]
            train = [image for index, image in enumerate(train) if index not in held_out]  # type: ignore[assignment]
        self.train_images, self.val_images = train, val
        if not self.crops["enlarge_small"]:
            hq = [image if isinstance(image, SourceImage) else image[0] for image in train]
            smallest = min(self.crops["shrink_factors"])
            check_sides(hq, math.ceil(self.crops["patch_px"] * self.common["scale"] / smallest))

    def _open(self, source: str, lq: str | None, split: Literal["train", "test"]) -> ImageSources:
        images = open_hq_images(source, split)
        if lq is None:
            return self._cached(images)
        hq, partners = zip(*pair_up(images, open_hq_images(lq), self.common["scale"]), strict=True)
        return list(zip(self._cached(hq), self._cached(partners), strict=True))

    def _cached(self, images: Sequence[SourceImage]) -> list[SourceImage]:
        return list(images) if self.cache_dir is None else [cached(image, self.cache_dir) for image in images]

    def train_dataloader(self) -> DataLoader[Any]:
        """Load crops, different ones in each epoch."""
        degradation = self.degradation if self.lq is None else None
        crops = TrainingCrops(self.train_images, degradation=degradation, **self.crops, **self.common)
        world_size, rank = self.world_size_and_rank
        order = EpochOrder(len(crops), batch_size=self.batch_size, seed=self.seed, world_size=world_size, rank=rank)
        return TrainLoader(crops, sampler=order, batch_size=self.device_batch_size, **self.loader_options())

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the whole validation images, each once over all processes; if they are fewer, every process has all."""
        world_size, rank = self.world_size_and_rank
        return self._whole(world_size, rank) if len(self.val_images) >= world_size else self._whole(1, 0)

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the same images in order, all of them in every process, so that each has the whole table."""
        return self._whole(1, 0)

    def _whole(self, world_size: int, rank: int) -> DataLoader[Any]:
        images = self.val_dataset()
        shard = EvenShard(len(images), batch_size=1, world_size=world_size, rank=rank)
        return ImageLoader(images, batch_sampler=shard, **self.loader_options())

    def val_dataset(self) -> WholeImages:
        """Return the whole validation images, with their names."""
        is_pairs = not isinstance(self.val_images[0], SourceImage)
        degradation = None if is_pairs else self.degradation
        return WholeImages(self.val_images, degradation=degradation, seed=self.seed, **self.common)
