"""Lightning's data module for image restoration: pairs of images, or good ones that are spoilt as they are read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from ..loader import EpochOrder, EvenShard, ImageLoader, TrainLoader
from .cache import cached
from .crops import TrainingCrops, WholeImages
from .degradations import build_degradation
from .image_pairs import SourceImage, check_sides, open_hq_images, pair_up

__all__ = ["RestorationData"]

ImageSources = Sequence[SourceImage] | Sequence[tuple[SourceImage, SourceImage]]


class RestorationData(LightningDataModule):
    """Batches of spoilt and good images, float (batch, channels, height, width) in 0-1: crops, or whole ones.

    The crops of a training step depend on `seed` and the epoch alone. Whole images come one by one.

    Args:
        data: good images: a folder, or `photographs`; see `open_hq_images`.
        low: folder of their spoilt partners; without it `degradation` spoils them.
        val: images to measure on, as `data`; by default the held-out photographs, or every so many-th of `data`.
        val_low: their spoilt partners.
        val_fraction: share of `data` that is held out where `val` is not given, 0-1.
        scale: sides of good images over those of spoilt ones.
        degradation: what spoils; a name of `DEGRADATIONS`.
        options: its options.
        patch_px: side of a spoilt crop.
        crops: crops of an epoch.
        batch_size: crops for one step of the optimiser, over all devices and accumulated batches.
        channels: 3 for colour, 1 for grey.
        shrink: see `TrainingCrops`.
        recolour: see `TrainingCrops`.
        enlarge: see `TrainingCrops`.
        keep: decoded images that every worker keeps in memory.
        cache: folder in which decoded images are kept as files; they are read from there in parts, quickly.
        workers: processes that read, for each device; 0 reads in the main process. Default: a share of the cores.
        seed: of crops and of chance in spoiling.

    Attributes:
        training: images to learn from, once set up.
        measuring: images to measure on, once set up.

    Raises:
        ValueError: a value out of its range, an unknown option, or data that cannot be used.

    Example:
        >>> data = RestorationData("photographs", scale=2, patch_px=16, crops=8, batch_size=4, workers=0)
        >>> data.setup()
        >>> low, high = next(iter(data.train_dataloader()))
        >>> low.shape, high.shape
        (torch.Size([4, 3, 16, 16]), torch.Size([4, 3, 32, 32]))
    """

    def __init__(
        self,
        data: str,
        *,
        low: str | None = None,
        val: str | None = None,
        val_low: str | None = None,
        val_fraction: float | int = 0.1,
        scale: int = 2,
        degradation: str = "bicubic",
        options: Mapping[str, Any] | None = None,
        patch_px: int = 64,
        crops: int = 16_000,
        batch_size: int = 32,
        channels: int = 3,
        shrink: Sequence[float | int] = (1.0,),
        recolour: bool = False,
        enlarge: bool = False,
        keep: int = 64,
        cache: str | None = None,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if val_low is not None and val is None:
            raise ValueError("val_low are the partners of val, which is not given")
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels}; images are read with 3 (colour) or 1 (grey)")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.data, self.low, self.val, self.val_low = data, low, val, val_low
        self.val_fraction, self.cache = val_fraction, cache
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.degradation = build_degradation(degradation, scale, options)
        self.common: dict[str, Any] = {"scale": scale, "channels": channels}
        self.crops: dict[str, Any] = {
            **{"count": crops, "patch_px": patch_px, "keep": keep},
            **{"shrink": tuple(shrink), "recolour": recolour, "enlarge": enlarge},
        }
        self.training: ImageSources = []
        self.measuring: ImageSources = []

    def setup(self, stage: str | None = None) -> None:
        """Find the images."""
        if self.training:
            return
        training = self._open(self.data, self.low, "train")
        if self.val is not None:
            measuring = self._open(self.val, self.val_low, "test")
        elif self.data == "photographs" and self.low is None:
            measuring = self._open(self.data, None, "test")
        else:
            count = max(1, round(len(training) * self.val_fraction))
            if not 0 < self.val_fraction < 1 or count >= len(training):
                raise ValueError(
                    f"of {len(training)} images a share of {self.val_fraction} cannot be held out to measure on; "
                    "give other images as val"
                )
            step = len(training) / count
            held = {int(place * step) for place in range(count)}
            measuring = [image for place, image in enumerate(training) if place in held]  # type: ignore[assignment]
            training = [image for place, image in enumerate(training) if place not in held]  # type: ignore[assignment]
        self.training, self.measuring = training, measuring
        if not self.crops["enlarge"]:
            good = [one if isinstance(one, SourceImage) else one[0] for one in training]
            check_sides(good, math.ceil(self.crops["patch_px"] * self.common["scale"] / min(self.crops["shrink"])))

    def _open(self, source: str, low: str | None, part: Any) -> ImageSources:
        images = open_hq_images(source, part)
        if low is None:
            return self._kept(images)
        pairs = pair_up(images, open_hq_images(low), self.common["scale"])
        good, bad = zip(*pairs, strict=True)
        return list(zip(self._kept(good), self._kept(bad), strict=True))

    def _kept(self, images: Sequence[SourceImage]) -> list[SourceImage]:
        if self.cache is None:
            return list(images)
        return [cached(image, self.cache) for image in images]

    @property
    def device_batch_size(self) -> int:
        """Crops of one batch of one device.

        Raises:
            ValueError: `batch_size` does not divide by the devices and accumulated batches.
        """
        parts = self._place()[0] * (self.trainer.accumulate_grad_batches if self.trainer else 1)
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} counts all crops of an optimiser step; it does not divide by "
                f"{parts} devices x accumulated batches. Try {max(1, self.batch_size // parts) * parts}"
            )
        return self.batch_size // parts

    def train_dataloader(self) -> DataLoader[Any]:
        """Crops, others in each epoch."""
        spoilt = self.degradation if self.low is None else None
        crops = TrainingCrops(self.training, degradation=spoilt, **self.crops, **self.common)
        world_size, rank = self._place()
        order = EpochOrder(len(crops), batch_size=self.batch_size, seed=self.seed, world_size=world_size, rank=rank)
        return TrainLoader(crops, sampler=order, batch_size=self.device_batch_size, **self._loading())

    def val_dataloader(self) -> DataLoader[Any]:
        """The whole images to measure on, each once over all processes; every process takes all if they are few."""
        world_size, rank = self._place()
        return self._whole(world_size, rank) if len(self.measuring) >= world_size else self._whole(1, 0)

    def test_dataloader(self) -> DataLoader[Any]:
        """The same, in order; every process takes all, so that each has the whole table."""
        return self._whole(1, 0)

    def _whole(self, world_size: int, rank: int) -> DataLoader[Any]:
        images = self.measured()
        shard = EvenShard(len(images), batch_size=1, world_size=world_size, rank=rank)
        return ImageLoader(images, batch_sampler=shard, **self._loading())

    def measured(self) -> WholeImages:
        """What is measured on."""
        pairs = not isinstance(self.measuring[0], SourceImage)
        spoilt = None if pairs else self.degradation
        return WholeImages(self.measuring, degradation=spoilt, seed=self.seed, **self.common)

    def _loading(self) -> dict[str, Any]:
        workers = self.workers
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            workers = min(8, max(1, cores // (self.trainer.num_devices if self.trainer else 1)))
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }

    def _place(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
