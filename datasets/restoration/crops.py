"""Pairs of crops to train on, and whole pairs to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from ..image_reading import UnreadableImageError
from ..loader import Draw
from .bicubic import Degradation, to_bits
from .image_pairs import SourceImage, as_floats, read_pair, to_grey
from .imresize import resize

__all__ = ["TrainingCrops", "WholeImages", "flip"]


class TrainingCrops(Dataset[Any]):
    """Aligned crops of a low-quality and a high-quality image, flipped and transposed together at random.

    A crop depends on the seed of its `Draw` alone.

    Args:
        images: high-quality images, which `degradation` degrades; or pairs of a high- and a low-quality image.
        count: crops of an epoch.
        patch_px: side of the low-quality crop.
        scale: side of the high-quality crop over that of the low-quality one.
        degradation: makes the low-quality crop; None for pairs.
        shrink_factors: factors, above 0 and at most 1; a high-quality image is first shrunk by one of them, drawn again
            each time: more and sharper crops from few images, as in Real-ESRGAN. Not for pairs.
        enlarge_small: enlarge an image smaller than a crop, as the authors do with ImageNet, instead of raising an
            error. Not for pairs.
        shuffle_channels: permute the channels of half of the crops, for few images.
        channels: 3 for colour, 1 for grey.
        cached_images: decoded images that are kept in memory; 0 decodes for every crop.

    Raises:
        ValueError: there are no images, or options do not fit together.
    """

    def __init__(
        self,
        images: Sequence[SourceImage] | Sequence[tuple[SourceImage, SourceImage]],
        *,
        count: int,
        patch_px: int,
        scale: int,
        degradation: Degradation | None = None,
        shrink_factors: Sequence[float | int] = (1.0,),
        enlarge_small: bool = False,
        shuffle_channels: bool = False,
        channels: int = 3,
        cached_images: int = 64,
    ) -> None:
        if not images:
            raise ValueError("there are no images to train on")
        if count < 1 or patch_px < 1:
            raise ValueError(f"count {count} and patch_px {patch_px} must be positive")
        if not shrink_factors or not all(0 < factor <= 1 for factor in shrink_factors):
            raise ValueError(f"shrink_factors {list(shrink_factors)} must be above 0 and at most 1")
        if degradation is None and (tuple(shrink_factors) != (1.0,) or enlarge_small):
            raise ValueError(
                "pairs cannot be resized; omit shrink_factors and enlarge_small, or give high-quality images alone"
            )
        if degradation is not None and degradation.scale != scale:
            raise ValueError(f"the degradation shrinks by {degradation.scale}, the network enlarges by {scale}")
        self.images, self.count, self.patch_px, self.scale = images, count, patch_px, scale
        self.degradation, self.shrink_factors, self.enlarge_small = degradation, shrink_factors, enlarge_small
        self.shuffle_channels, self.channels = shuffle_channels, channels
        self.cached_images = cached_images
        self._cache: dict[tuple[int, float], tuple[np.ndarray, np.ndarray | None]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw | int) -> Any:
        """A low- and a high-quality crop, float in 0-1, channels first; or the error of an unreadable image."""
        rng = np.random.default_rng(draw.seed if isinstance(draw, Draw) else draw)
        index = int(rng.integers(len(self.images)))
        try:
            hq, lq = self._read(index, float(rng.choice(self.shrink_factors)))
            lq_crop, hq_crop = self._crop(hq, lq, _name(self.images[index]), rng)
        except UnreadableImageError as error:
            return error
        flips, order = rng.integers(2, size=3).tolist(), np.arange(self.channels)
        if self.shuffle_channels and rng.random() < 0.5:
            order = rng.permutation(self.channels)
        return tuple(_as_tensor(flip(crop, *flips)[..., order]) for crop in (lq_crop, hq_crop))

    def _read(self, index: int, factor: float) -> tuple[np.ndarray, np.ndarray | None]:
        """The high-quality image, and the low-quality one of a pair, from a least-recently-used cache."""
        found = self._cache.pop((index, factor), None)
        found = self._decode(index, factor) if found is None else found
        if self.cached_images:
            self._cache[index, factor] = found
        if len(self._cache) > self.cached_images:
            self._cache.pop(next(iter(self._cache)))
        return found

    def _decode(self, index: int, factor: float) -> tuple[np.ndarray, np.ndarray | None]:
        image = self.images[index]
        if not isinstance(image, SourceImage):
            hq, lq = read_pair(*image, self.scale)
            return (hq, lq) if self.channels == 3 else (to_grey(hq), to_grey(lq))
        pixels = image.read() if self.channels == 3 else to_grey(image.read())
        if self.enlarge_small:
            factor = max(factor, self.patch_px * self.scale / min(pixels.shape[:2]))
        if factor != 1:
            max_value = np.iinfo(pixels.dtype).max
            pixels = (to_bits(resize(as_floats(pixels), factor)) * max_value).round().astype(pixels.dtype)
        return pixels, None

    def _crop(
        self, hq: np.ndarray, lq: np.ndarray | None, name: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        scale, side = self.scale, self.patch_px
        height, width = hq.shape[0] // scale, hq.shape[1] // scale
        if min(height, width) < side:
            raise UnreadableImageError(
                name,
                f"its {width * scale} x {height * scale} pixels are less than a crop of {side * scale}; "
                "remove it, or choose a smaller patch_px",
            )
        top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
        hq_crop = hq[tuple(slice(start * scale, (start + side) * scale) for start in (top, left))]
        if lq is not None:
            return as_floats(lq[top : top + side, left : left + side]), as_floats(hq_crop)
        assert self.degradation is not None
        margin = self.degradation.margin // scale
        step = max(1, self.degradation.grid // scale)
        starts = [max(0, start - margin) // step * step for start in (top, left)]
        stops = [min(length, start + side + margin) for start, length in ((top, height), (left, width))]
        with_margin = tuple(slice(start * scale, stop * scale) for start, stop in zip(starts, stops, strict=True))
        degraded = self.degradation(as_floats(hq[with_margin]), rng)
        row, column = top - starts[0], left - starts[1]
        return degraded[row : row + side, column : column + side], as_floats(hq_crop)


class WholeImages(Dataset[Any]):
    """Whole low- and high-quality images; a random degradation is seeded by the index of the image.

    Args:
        images: high-quality images, which `degradation` degrades; or pairs of a high- and a low-quality image.
        scale: side of the high-quality images over that of the low-quality ones.
        degradation: makes the low-quality images; None for pairs.
        channels: 3 for colour, 1 for grey.
        seed: of random degradations.
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

    def name(self, index: int) -> str:
        """Name of an image in tables."""
        return _name(self.images[index])

    def __getitem__(self, index: int) -> Any:
        """A low- and a high-quality image, float in 0-1, channels first; or the error of an unreadable one."""
        image = self.images[index]
        try:
            if not isinstance(image, SourceImage):
                pair = read_pair(*image, self.scale)
                hq, lq = (as_floats(pixels if self.channels == 3 else to_grey(pixels)) for pixels in pair)
            else:
                pixels = image.read()
                hq = as_floats(pixels if self.channels == 3 else to_grey(pixels))
                height, width = (length // self.scale * self.scale for length in hq.shape[:2])
                if not height or not width:
                    raise UnreadableImageError(image.name, f"it is smaller than {self.scale} pixels")
                hq = hq[:height, :width]
                assert self.degradation is not None
                lq = self.degradation(hq, np.random.default_rng([self.seed, index]))
        except UnreadableImageError as error:
            return error
        return _as_tensor(lq), _as_tensor(hq)


def flip(
    image: Shaped[np.ndarray, "height width channels"], horizontal: int, vertical: int, transpose: int
) -> Shaped[np.ndarray, "new_height new_width channels"]:
    """Flip left-right, flip top-bottom, and swap rows and columns: together the eight symmetries of a square."""
    if horizontal:
        image = image[:, ::-1]
    if vertical:
        image = image[::-1]
    return image.swapaxes(0, 1) if transpose else image


def _name(image: SourceImage | tuple[SourceImage, SourceImage]) -> str:
    return image.name if isinstance(image, SourceImage) else image[0].name


def _as_tensor(image: np.ndarray) -> Float[Tensor, "channels height width"]:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
