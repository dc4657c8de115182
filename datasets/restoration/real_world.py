"""Real-world degradation: two rounds of random blur, resizing, noise and JPEG compression.

Source: Wang et al. 2021, arXiv:2107.10833 (Real-ESRGAN), section 3; the numbers are those that Real-HAT was trained
with, XPixelGroup/HAT@1638a9a options/train/train_Real_HAT_GAN_SRx4. There all images of a batch are
resized by the same factor and a pool of pairs mixes batches; here every crop is degraded separately, so no pool is
needed. Their "sharper" model is trained on sharpened targets; here targets are unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from .bicubic import to_bits
from .jpeg import compress
from .kernels import Blur
from .noise import gaussian_noise, poisson_noise

__all__ = ["RealWorld", "Round"]

_INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of degradation.

    Attributes:
        blur: how its kernel is drawn.
        blur_rate: probability of blurring, 0-1.
        resize_shares: probability of enlarging, of shrinking, and of keeping the size.
        resize: smallest and largest factor on the side.
        gaussian_rate: probability of Gaussian noise, 0-1; otherwise Poisson noise is added.
        sigma: range of the standard deviation of Gaussian noise, for pixels in 0-255.
        poisson: range of the factor on Poisson noise.
        grey_rate: probability of the same noise in all channels, 0-1.
        quality: range of the JPEG quality.
    """

    blur: Blur = field(default_factory=Blur)
    blur_rate: float = 1.0
    resize_shares: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize: tuple[float | int, float | int] = (0.15, 1.5)
    gaussian_rate: float = 0.5
    sigma: tuple[float | int, float | int] = (1.0, 30.0)
    poisson: tuple[float | int, float | int] = (0.05, 3.0)
    grey_rate: float = 0.4
    quality: tuple[int, int] = (30, 95)

    def blurred(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Blur, or not, at random."""
        return _filter(image, self.blur.draw(rng)) if rng.random() < self.blur_rate else image

    def resized(self, image: np.ndarray, base: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Resize to a random factor of a `base` height and width, by a random interpolation."""
        up, down, _ = self.resize_shares
        drawn, factor = rng.random(), 1.0
        if drawn < up:
            factor = rng.uniform(1.0, self.resize[1])
        elif drawn < up + down:
            factor = rng.uniform(self.resize[0], 1.0)
        return _resize(image, (max(1, round(base[0] * factor)), max(1, round(base[1] * factor))), rng)

    def noisy(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add noise of a random kind."""
        grey = bool(rng.random() < self.grey_rate)
        if rng.random() < self.gaussian_rate:
            noisy = gaussian_noise(image, rng.uniform(*self.sigma), rng, grey=grey)
        else:
            noisy = poisson_noise(image, rng.uniform(*self.poisson), rng, grey=grey)
        return noisy.clip(0, 1)

    def compressed(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Compress with a random quality."""
        return compress(image, int(rng.integers(self.quality[0], self.quality[1] + 1)))


def _second() -> Round:
    return Round(
        blur=Blur(sigma=(0.2, 1.5)),
        blur_rate=0.8,
        resize_shares=(0.3, 0.4, 0.3),
        resize=(0.3, 1.2),
        sigma=(1.0, 25.0),
        poisson=(0.05, 2.5),
    )


@dataclass(frozen=True, kw_only=True)
class RealWorld:
    """Degrade in two rounds, then resize; a last low pass and JPEG follow in random order.

    Attributes:
        scale: old over new side.
        first: the first round; a dict of what differs from `Round`'s defaults.
        second: likewise.
        final_sinc: probability of the last low pass, 0-1.

    Raises:
        ValueError: `scale` is not an integer of at least 1, or a round has no such option.

    Example:
        >>> degraded = RealWorld(scale=4)(np.full((64, 48, 3), 0.5, np.float32), np.random.default_rng(0))
        >>> degraded.shape
        (16, 12, 3)
    """

    scale: int = 4
    first: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)
    final_sinc: float = 0.8

    #: A crop starts at a multiple of this.
    grid = 1

    def __post_init__(self) -> None:
        if self.scale < 1 or self.scale != int(self.scale):
            raise ValueError(f"real_world shrinks by an integer of at least 1, not by {self.scale}")
        self._rounds()

    @property
    def margin(self) -> int:
        """Keeps most border effects of filters out of a crop."""
        return 16 * self.scale

    def _rounds(self) -> tuple[Round, Round]:
        try:
            return Round(**_tuples(self.first)), Round(**(vars(_second()) | _tuples(self.second)))
        except TypeError as error:
            raise ValueError(f"first and second take the options of a round: {error}") from error

    def __call__(
        self, image: Float[np.ndarray, "height width channels"], rng: np.random.Generator
    ) -> Float[np.ndarray, "lq_height lq_width channels"]:
        """Degrade."""
        height, width = image.shape[:2]
        small = (max(1, height // self.scale), max(1, width // self.scale))
        first, second = self._rounds()
        degraded = first.resized(first.blurred(image, rng), (height, width), rng)
        degraded = first.compressed(first.noisy(degraded, rng), rng)
        degraded = second.resized(second.blurred(degraded, rng), small, rng)
        degraded = second.noisy(degraded, rng)
        side = int(rng.choice(second.blur.sides))
        kernel = Blur.draw_sinc(side, rng) if rng.random() < self.final_sinc else np.ones((1, 1))
        if rng.random() < 0.5:
            degraded = second.compressed(_filter(_resize(degraded, small, rng), kernel), rng)
        else:
            degraded = _filter(_resize(second.compressed(degraded, rng), small, rng), kernel)
        return to_bits(degraded).astype(np.float32)


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    """Convert the lists of YAML to tuples, and the options of a blur to a `Blur`."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if isinstance(options.get("blur"), dict):
        plain["blur"] = Blur(**_tuples(options["blur"]))
    return plain


def _filter(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve, with mirrored borders."""
    return cv2.filter2D(image, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def _resize(image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    interpolation = _INTERPOLATIONS[int(rng.integers(len(_INTERPOLATIONS)))]
    resized = cv2.resize(image, (size[1], size[0]), interpolation=interpolation).reshape(*size, image.shape[2])
    return resized.clip(0, 1)
