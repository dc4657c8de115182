"""Bicubic resizing as MATLAB's `imresize`, by which super-resolution papers make their low-resolution images.

Source: Keys 1981 (the cubic kernel, a = -1/2); MATLAB's documentation for the differences from OpenCV,
PyTorch and Pillow: the kernel is widened by the factor when an image shrinks ("antialiasing"), borders are mirrored
with the border pixel repeated, and pixel centres lie at half steps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

__all__ = ["contributions", "cubic", "resize", "resized_length"]


def cubic(distance: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Keys' cubic kernel with a = -1/2 (equation 15 there).

    Args:
        distance: from a pixel's centre, in pixels.

    Example:
        >>> cubic(np.array([0.0, 0.5, 1.0, 1.5, 2.0])).tolist()
        [1.0, 0.5625, 0.0, -0.0625, 0.0]
    """
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def resized_length(length: int, scale: float | int) -> int:
    """Compute the length of an axis after resizing; MATLAB rounds it up.

    Example:
        >>> resized_length(481, 1 / 2), resized_length(9, 1 / 3)
        (241, 3)
    """
    return max(1, math.ceil(length * scale - 1e-9))  # tolerance for rounding errors, such as of 9 * (1 / 3)


@lru_cache(maxsize=256)
def contributions(
    length: int, new_length: int, scale: float | int
) -> tuple[Float[np.ndarray, "new taps"], Int[np.ndarray, "new taps"]]:
    """Compute, for every pixel of a resized axis, the weights and indices of the old pixels; weights add up to 1.

    Args:
        length: pixels of the axis.
        new_length: pixels after resizing.
        scale: new over old distance between pixels, above 0; below 1 the kernel is widened by 1 / `scale`.

    Example:
        >>> weights, indices = contributions(4, 2, 0.5)
        >>> weights[0].round(5).tolist(), indices[0].tolist()
        ([-0.01172, -0.03516, 0.11328, 0.43359, 0.43359, 0.11328, -0.03516, -0.01172], [2, 1, 0, 0, 1, 2, 3, 3])
    """
    stretch = min(1.0, scale)
    centres = (np.arange(new_length) + 0.5) / scale - 0.5
    width = 4 / stretch
    taps = math.ceil(width) + 2
    indices = np.floor(centres - width / 2).astype(np.int64)[:, None] + np.arange(taps)
    weights = stretch * cubic(stretch * (centres[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    indices = np.mod(indices, 2 * length)
    indices = np.where(indices < length, indices, 2 * length - 1 - indices)
    kept = np.any(weights != 0, axis=0)
    return weights[:, kept], indices[:, kept]


def resize(
    image: Float[np.ndarray, "height width *channels"],
    scale: float | int | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Float[np.ndarray, "new_height new_width *channels"]:
    """Resize by MATLAB's bicubic, `imresize(image, scale)` or `imresize(image, [height width])`.

    Nothing is rounded or clipped: MATLAB rounds 8-bit images after each of its two passes, the authors of the networks
    once at the end. The result is of float64 for float64 and of float32 otherwise.

    Args:
        image: any range of values.
        scale: new over old side, above 0; the new sides are rounded up.
        size: new height and width, instead of `scale`.

    Raises:
        ValueError: neither or both of `scale` and `size` are given, they are not positive, or the image is empty.

    Example:
        >>> resize(np.arange(16.0).reshape(4, 4), 0.5).round(3).tolist()
        [[2.305, 4.383], [10.617, 12.695]]
    """
    if (scale is None) == (size is None):
        raise ValueError("give either scale or size")
    height, width = image.shape[:2]
    if not image.size:
        raise ValueError(f"an image of {height} x {width} pixels is empty")
    if (scale is not None and not scale > 0) or (size is not None and min(size) < 1):
        raise ValueError(f"{f'scale {scale}' if size is None else f'size {size}'} must be positive")
    if size is None:
        assert scale is not None
        size = resized_length(height, scale), resized_length(width, scale)
        scales = (scale, scale)
    else:
        scales = size[0] / height, size[1] / width
    exact = image.astype(np.promote_types(image.dtype, np.float32), copy=False)
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):  # MATLAB resizes the axis that shrinks more first
        weights, indices = contributions(exact.shape[axis], size[axis], scales[axis])
        exact = _along(exact, weights.astype(exact.dtype), indices, axis)
    return exact


def _along(image: np.ndarray, weights: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """Add up the weighted pixels of one axis, tap by tap, so that memory stays that of the image."""
    shape = [1] * image.ndim
    shape[axis] = len(weights)
    total = np.zeros((*image.shape[:axis], len(weights), *image.shape[axis + 1 :]), image.dtype)
    for tap in range(weights.shape[1]):
        total += weights[:, tap].reshape(shape) * image.take(indices[:, tap], axis=axis)
    return total
