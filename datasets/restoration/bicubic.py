"""The interface of degradations, and shrinking by MATLAB's bicubic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from .imresize import resize

__all__ = ["Bicubic", "Degradation", "to_bits"]


@runtime_checkable
class Degradation(Protocol):
    """Turns a high-quality image into a low-quality one.

    Attributes:
        scale: side of the input over that of the output.
        margin: distance in pixels of the input, a multiple of `scale`, over which a pixel affects the output. A crop
            is degraded with this margin around it, so that it equals the same crop of the whole degraded image.
        grid: a crop that is degraded starts at a multiple of this many pixels of the input.
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
    ) -> Float[np.ndarray, "lq_height lq_width channels"]:
        """Degrade an image in 0-1 whose sides are multiples of `scale`."""
        ...


def to_bits(image: Float[np.ndarray, "*shape"], bits: int = 8) -> Float[np.ndarray, "*shape"]:
    """Clip to 0-1 and round to the values that `bits` bits can hold, as writing a file does.

    Example:
        >>> to_bits(np.array([-0.2, 0.5, 1.1])).tolist()
        [0.0, 0.5019607843137255, 1.0]
    """
    max_value = 2**bits - 1
    return np.rint(image.clip(0, 1) * max_value) / max_value


@dataclass(frozen=True, kw_only=True)
class Bicubic:
    """Shrink by MATLAB's bicubic and round: the standard super-resolution task.

    Attributes:
        scale: old over new side, at least 2.
        bits: bits a channel of the result: 8, or 16 for images that have them.

    Raises:
        ValueError: `scale` is not an integer of at least 2.

    Example:
        >>> Bicubic(scale=2)(np.ones((8, 6, 3), np.float32), np.random.default_rng(0)).shape
        (4, 3, 3)
    """

    scale: int = 2
    bits: int = 8

    #: A crop starts at a multiple of this.
    grid = 1

    def __post_init__(self) -> None:
        if self.scale < 2 or self.scale != int(self.scale):
            raise ValueError(f"bicubic shrinks by an integer of at least 2, not by {self.scale}")

    @property
    def margin(self) -> int:
        """Half the widened kernel, plus one pixel of the small image."""
        return 4 * self.scale

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "lq_height lq_width channels"]:
        """Shrink; nothing is random."""
        return to_bits(resize(image, 1 / self.scale), self.bits)
