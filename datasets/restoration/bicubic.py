"""Degradations: what spoils a good image. Here what they share, and shrinking by MATLAB's bicubic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from .imresize import resize

__all__ = ["Bicubic", "Degradation", "to_bits"]


@runtime_checkable
class Degradation(Protocol):
    """Spoils an image.

    Attributes:
        scale: sides of what goes in over those of what comes out.
        margin: pixels of the good image, a multiple of `scale`, that may change what becomes of a pixel. A crop is
            spoilt with as many pixels around it, so that it is what it would be in the whole image.
        grid: a crop that is spoilt begins at a multiple of this many pixels of the good image.
    """

    @property
    def scale(self) -> int:
        """See the class."""
        ...

    @property
    def margin(self) -> int:
        """See the class."""
        ...

    @property
    def grid(self) -> int:
        """See the class."""
        ...

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "low_height low_width channels"]:
        """Spoil an image in 0-1 whose sides are multiples of `scale`."""
        ...


def to_bits(image: Float[np.ndarray, "*shape"], bits: int = 8) -> Float[np.ndarray, "*shape"]:
    """Clip to 0-1 and round to what so many bits can hold, as writing a file does.

    Example:
        >>> to_bits(np.array([-0.2, 0.5, 1.1])).tolist()
        [0.0, 0.5019607843137255, 1.0]
    """
    top = 2**bits - 1
    return np.rint(image.clip(0, 1) * top) / top


@dataclass(frozen=True, kw_only=True)
class Bicubic:
    """Shrink by MATLAB's bicubic and round: the task of papers on super-resolution.

    Attributes:
        scale: old over new side, at least 2.
        bits: of the result: 8, or 16 for images that have them.

    Raises:
        ValueError: `scale` is no whole number from 2 on.

    Example:
        >>> Bicubic(scale=2)(np.ones((8, 6, 3), np.float32), np.random.default_rng(0)).shape
        (4, 3, 3)
    """

    scale: int = 2
    bits: int = 8

    #: The step at which a crop may begin.
    grid = 1

    def __post_init__(self) -> None:
        if self.scale < 2 or self.scale != int(self.scale):
            raise ValueError(f"bicubic shrinks by a whole number from 2 on, not by {self.scale}")

    @property
    def margin(self) -> int:
        """Half the widened kernel, and a pixel of the small image more."""
        return 4 * self.scale

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "low_height low_width channels"]:
        """Shrink; nothing is by chance."""
        return to_bits(resize(image, 1 / self.scale), self.bits)
