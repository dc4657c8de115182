"""Gaussian and Poisson noise, in colour or grey; and the standard denoising task.

Source: XPixelGroup/BasicSR `degradations`, as Wang et al. 2021, arXiv:2107.10833, use them; Chen et al. 2023,
arXiv:2309.05239, for denoising (sigma 15, 25 and 50).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["Noise", "gaussian_noise", "poisson_noise", "span"]


def span(
    name: str, value: float | Sequence[float | int] | int, min_value: float | int, max_value: float | int
) -> tuple[float, float]:
    """Read a number or a pair as a range.

    Args:
        name: name of the option, for the message.
        value: the number, or [low, high].
        min_value: lowest value that is allowed.
        max_value: highest value that is allowed.

    Raises:
        ValueError: it is neither, not in order, or out of range.

    Example:
        >>> span("quality", [30, 95], 1, 100), span("sigma", 25, 0, 255)
        ((30.0, 95.0), (25.0, 25.0))
    """
    pair = list(value) if isinstance(value, Sequence) else [value, value]
    if len(pair) != 2 or not min_value <= pair[0] <= pair[1] <= max_value:
        allowed = f"a number from {min_value:g} to {max_value:g}, or a range [low, high]"
        raise ValueError(f"{name} is {value}; expected {allowed}")
    return float(pair[0]), float(pair[1])


def gaussian_noise(
    image: Float[np.ndarray, "height width channels"],
    sigma: float | int,
    rng: np.random.Generator,
    *,
    grey: bool = False,
) -> Float[np.ndarray, "height width channels"]:
    """Add Gaussian noise, without clipping.

    Args:
        image: in 0-1.
        sigma: standard deviation, for pixels in 0-255.
        rng: random generator.
        grey: the same noise in all channels.
    """
    shape = (*image.shape[:2], 1) if grey else image.shape
    return image + (rng.standard_normal(shape, np.float32) * np.float32(sigma / 255))


def poisson_noise(
    image: Float[np.ndarray, "height width channels"],
    strength: float | int,
    rng: np.random.Generator,
    *,
    grey: bool = False,
) -> Float[np.ndarray, "height width channels"]:
    """Add Poisson (shot) noise; counts are in units of 1 / n, n the power of 2 not below the number of levels.

    Args:
        image: in 0-1; it is rounded to 8 bits for the counts.
        strength: factor on the noise.
        rng: random generator.
        grey: compute the noise of the mean of the channels, and add it to all of them.
    """
    levels = np.rint(image.clip(0, 1) * 255)
    if grey:
        levels = np.rint(levels.mean(axis=2, keepdims=True))
    counts = 2 ** np.ceil(np.log2(len(np.unique(levels))))
    light = levels / 255
    noise = rng.poisson(light * counts) / counts - light
    return (image + strength * noise).astype(image.dtype)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Add Gaussian noise as in the denoising literature: the result is neither clipped nor rounded.

    Attributes:
        sigma: standard deviation, for pixels in 0-255, or a range that it is drawn from.
        grey: whether all channels get the same noise.
        scale: 1; noise does not shrink images.

    Raises:
        ValueError: `sigma` is out of range, or `scale` is not 1.

    Example:
        >>> flat = np.full((50, 50, 3), 0.5, np.float32)
        >>> round(float(Noise(sigma=25)(flat, np.random.default_rng(0)).std() * 255), 1)
        24.7
    """

    sigma: float | int | Sequence[float | int] = 25
    grey: bool = False
    scale: int = 1

    #: Pixels around a pixel that affect it.
    margin = 0
    #: A crop starts at a multiple of this.
    grid = 1

    def __post_init__(self) -> None:
        span("sigma", self.sigma, 0, 255)
        if self.scale != 1:
            raise ValueError(
                f"noise does not shrink images, but the network enlarges by {self.scale}; choose one for x1"
            )

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "height width channels"]:
        """Add noise."""
        return gaussian_noise(image, rng.uniform(*span("sigma", self.sigma, 0, 255)), rng, grey=self.grey)
