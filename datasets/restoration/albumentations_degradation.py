"""Any transforms of albumentations as a degradation, then MATLAB's bicubic where images shrink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from ..albumentations_list import AlbumentationsList
from ..loader import own_random
from .bicubic import to_bits
from .imresize import resize

__all__ = ["Albumentations"]


@dataclass(frozen=True, kw_only=True)
class Albumentations:
    """Transforms of that library that keep the size, on 8 bits, then bicubic shrinking by `scale`.

    Useful ones: AdvancedBlur, Defocus, GaussNoise, ISONoise, ShotNoise, ImageCompression (also WebP), MotionBlur,
    RingingOvershoot, Downscale.

    Attributes:
        transforms: names, or names with their arguments, e.g. [{ISONoise: {p: 1.0}}].
        scale: old over new side; 1 leaves it.

    Raises:
        ValueError: an unknown transform or argument, or one that changes the size.

    Example:
        >>> spoil = Albumentations(transforms=[{"ImageCompression": {"quality_range": (20, 30), "p": 1.0}}], scale=2)
        >>> spoil(np.ones((16, 16, 3), np.float32), np.random.default_rng(0)).shape
        (8, 8, 3)
    """

    transforms: Sequence[Any] = field(default_factory=list)
    scale: int = 1

    #: The step at which a crop may begin.
    grid = 1

    def __post_init__(self) -> None:
        if not self.transforms:
            raise ValueError("albumentations needs options: {transforms: [...]}")
        object.__setattr__(self, "_pipeline", AlbumentationsList(self.transforms))

    @property
    def margin(self) -> int:
        """What keeps the borders of most filters out of a crop."""
        return 16 * self.scale

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "low_height low_width channels"]:
        """Spoil."""
        pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
        with own_random(int(rng.integers(2**63))):
            changed = self._pipeline(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))  # type: ignore[attr-defined]
        spoilt = np.asarray(changed, np.float32).reshape(image.shape) / 255
        return spoilt if self.scale == 1 else to_bits(resize(spoilt, 1 / self.scale)).astype(np.float32)
