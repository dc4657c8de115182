"""Pairs of crops to learn from, and whole pairs to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from ..images import UnreadableImageError
from ..loader import Draw
from .bicubic import Degradation, to_bits
from .image_pairs import SourceImage, as_floats, read_pair, to_grey
from .imresize import resize

__all__ = ["TrainingCrops", "WholeImages", "turn"]


class TrainingCrops(Dataset[Any]):
    """Crops of the same place of a spoilt and of a good image, flipped and turned together by chance.

    What a crop is depends on the seed of its `Draw` alone.

    Args:
        images: good ones, that `degradation` spoils; or pairs of a good and a spoilt one.
        count: crops of an epoch.
        patch_px: side of the spoilt crop.
        scale: sides of the good crop over those of the spoilt one.
        degradation: what spoils; None for pairs.
        shrink: factors, above 0 and at most 1, by one of which a good image is shrunk before, drawn anew each time:
            more and sharper crops from few images, as Real-ESRGAN does. Not for pairs.
        enlarge: whether an image smaller than a crop is enlarged to it, as the authors do with ImageNet; otherwise it
            is an error. Not for pairs.
        recolour: whether the channels are shuffled in half of the crops, for few images.
        channels: 3 for colour, 1 for grey.
        keep: images that stay decoded in memory; 0 decodes for every crop.

    Raises:
        ValueError: there are no images, or options do not go together.
    """

    def __init__(
        self,
        images: Sequence[SourceImage] | Sequence[tuple[SourceImage, SourceImage]],
        *,
        count: int,
        patch_px: int,
        scale: int,
        degradation: Degradation | None = None,
        shrink: Sequence[float | int] = (1.0,),
        enlarge: bool = False,
        recolour: bool = False,
        channels: int = 3,
        keep: int = 64,
    ) -> None:
        if not images:
            raise ValueError("there are no images to learn from")
        if count < 1 or patch_px < 1:
            raise ValueError(f"count {count} and patch_px {patch_px} must be positive")
        if not shrink or not all(0 < factor <= 1 for factor in shrink):
            raise ValueError(f"shrink {list(shrink)} must be factors above 0 and at most 1")
        if degradation is None and (tuple(shrink) != (1.0,) or enlarge):
            raise ValueError("pairs cannot be resized; leave out shrink and enlarge, or give good images alone")
        if degradation is not None and degradation.scale != scale:
            raise ValueError(f"the degradation shrinks by {degradation.scale}, the network enlarges by {scale}")
        self.images, self.count, self.patch_px, self.scale = images, count, patch_px, scale
        self.degradation, self.shrink, self.enlarge = degradation, shrink, enlarge
        self.recolour, self.channels = recolour, channels
        self.keep = keep
        self._kept: dict[tuple[int, float], tuple[np.ndarray, np.ndarray | None]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw | int) -> Any:
        """A spoilt and a good crop, float in 0-1, channels first; or the error of an unreadable image."""
        rng = np.random.default_rng(draw.seed if isinstance(draw, Draw) else draw)
        place = int(rng.integers(len(self.images)))
        try:
            good, bad = self._read(place, float(rng.choice(self.shrink)))
            low, high = self._crop(good, bad, self._name(place), rng)
        except UnreadableImageError as error:
            return error
        flips, order = rng.integers(2, size=3).tolist(), np.arange(self.channels)
        if self.recolour and rng.random() < 0.5:
            order = rng.permutation(self.channels)
        return tuple(_as_tensor(turn(part, *flips)[..., order]) for part in (low, high))

    def _name(self, place: int) -> str:
        image = self.images[place]
        return image.name if isinstance(image, SourceImage) else image[0].name

    def _read(self, place: int, factor: float) -> tuple[np.ndarray, np.ndarray | None]:
        """The good image, and the spoilt one of a pair; the one that was asked for longest ago makes room."""
        found = self._kept.pop((place, factor), None)
        found = self._decode(place, factor) if found is None else found
        if self.keep:
            self._kept[place, factor] = found
        if len(self._kept) > self.keep:
            self._kept.pop(next(iter(self._kept)))
        return found

    def _decode(self, place: int, factor: float) -> tuple[np.ndarray, np.ndarray | None]:
        image = self.images[place]
        if not isinstance(image, SourceImage):
            good, bad = read_pair(*image, self.scale)
            return (good, bad) if self.channels == 3 else (to_grey(good), to_grey(bad))
        pixels = image.read() if self.channels == 3 else to_grey(image.read())
        if self.enlarge:
            factor = max(factor, self.patch_px * self.scale / min(pixels.shape[:2]))
        if factor != 1:
            top = np.iinfo(pixels.dtype).max
            pixels = (to_bits(resize(as_floats(pixels), factor)) * top).round().astype(pixels.dtype)
        return pixels, None

    def _crop(
        self, good: np.ndarray, bad: np.ndarray | None, name: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        scale, side = self.scale, self.patch_px
        height, width = good.shape[0] // scale, good.shape[1] // scale
        if min(height, width) < side:
            raise UnreadableImageError(
                name,
                f"its {width * scale} x {height * scale} pixels are less than a crop of {side * scale}; "
                "take it away, or choose a smaller patch_px",
            )
        top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
        place = tuple(slice(start * scale, (start + side) * scale) for start in (top, left))
        if bad is not None:
            return as_floats(bad[top : top + side, left : left + side]), as_floats(good[place])
        assert self.degradation is not None
        margin = self.degradation.margin // scale
        step = max(1, self.degradation.grid // scale)
        starts = [max(0, start - margin) // step * step for start in (top, left)]
        stops = [min(length, start + side + margin) for start, length in ((top, height), (left, width))]
        wide = tuple(slice(start * scale, stop * scale) for start, stop in zip(starts, stops, strict=True))
        spoilt = self.degradation(as_floats(good[wide]), rng)
        row, column = top - starts[0], left - starts[1]
        return spoilt[row : row + side, column : column + side], as_floats(good[place])


class WholeImages(Dataset[Any]):
    """Whole spoilt and good images; what is by chance in spoiling is seeded by the place of the image.

    Args:
        images: good ones, that `degradation` spoils; or pairs of a good and a spoilt one.
        scale: sides of the good images over those of the spoilt ones.
        degradation: what spoils; None for pairs.
        channels: 3 for colour, 1 for grey.
        seed: of chance.
    """

    def __init__(
        self,
        images: Sequence[SourceImage] | Sequence[tuple[SourceImage, SourceImage]],
        *,
        scale: int,
        degradation: Degradation | None = None,
        channels: int = 3,
        seed: int = 0,
    ) -> None:
        self.images, self.scale, self.degradation = images, scale, degradation
        self.channels, self.seed = channels, seed

    def __len__(self) -> int:
        return len(self.images)

    def name(self, place: int) -> str:
        """What the image is called in tables."""
        image = self.images[place]
        return image.name if isinstance(image, SourceImage) else image[0].name

    def __getitem__(self, place: int) -> Any:
        """A spoilt and a good image, float in 0-1, channels first; or the error of an unreadable one."""
        image = self.images[place]
        try:
            if not isinstance(image, SourceImage):
                parts = read_pair(*image, self.scale)
                good, bad = (as_floats(part if self.channels == 3 else to_grey(part)) for part in parts)
            else:
                pixels = image.read()
                good = as_floats(pixels if self.channels == 3 else to_grey(pixels))
                height, width = (length // self.scale * self.scale for length in good.shape[:2])
                if not height or not width:
                    raise UnreadableImageError(image.name, f"it is smaller than {self.scale} pixels")
                good = good[:height, :width]
                assert self.degradation is not None
                bad = self.degradation(good, np.random.default_rng([self.seed, place]))
        except UnreadableImageError as error:
            return error
        return _as_tensor(bad), _as_tensor(good)


def turn(
    image: Shaped[np.ndarray, "height width channels"], across: int, down: int, swap: int
) -> Shaped[np.ndarray, "new_height new_width channels"]:
    """Flip left and right, flip top and bottom, and swap rows and columns: together the eight turns of a square."""
    if across:
        image = image[:, ::-1]
    if down:
        image = image[::-1]
    return image.swapaxes(0, 1) if swap else image


def _as_tensor(image: np.ndarray) -> Float[Tensor, "channels height width"]:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
