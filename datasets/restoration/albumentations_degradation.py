"""Transforms of albumentations as a degradation, followed by MATLAB's bicubic if the image shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from ..albumentations_list import AlbumentationsList
from ..loader import seeded_random
from .bicubic import to_bits
from .imresize import resize

__all__ = ["Albumentations"]


@dataclass(frozen=True, kw_only=True)
class Albumentations:
    """Apply albumentations that keep the size, on 8 bits, then shrink by bicubic.

    Useful ones: AdvancedBlur, Defocus, GaussNoise, ISONoise, ShotNoise, ImageCompression (also WebP), MotionBlur,
    RingingOvershoot, Downscale.

    Attributes:
        transforms: names, or names with their arguments, e.g. [{ISONoise: {p: 1.0}}].
        scale: old over new side; 1 keeps the size.

    Raises:
        ValueError: an unknown transform or argument, or one that changes the size.

    Example:
        >>> degrade = Albumentations(transforms=[{"ImageCompression": {"quality_range": (20, 30), "p": 1.0}}], scale=2)
        >>> degrade(np.ones((16, 16, 3), np.float32), np.random.default_rng(0)).shape
        (8, 8, 3)
    """

    transforms: Sequence[Any] = field(default_factory=list)
    scale: int = 1

    #: A crop starts at a multiple of this.
    grid = 1

    def __post_init__(self) -> None:
        if not self.transforms:
            raise ValueError("albumentations needs options: {transforms: [...]}")
        object.__setattr__(self, "_pipeline", AlbumentationsList(self.transforms))

    @property
    def margin(self) -> int:
        """Keeps the border effects of most filters out of a crop."""
        return 16 * self.scale

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "lq_height lq_width channels"]:
        """Degrade."""
        pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
        with seeded_random(int(rng.integers(2**63))):
            changed = self._pipeline(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))  # type: ignore[attr-defined]
        degraded = np.asarray(changed, np.float32).reshape(image.shape) / 255
        return degraded if self.scale == 1 else to_bits(resize(degraded, 1 / self.scale)).astype(np.float32)
