"""PSNR and SSIM of restored images, as measured in papers on restoration.

Both images are rounded to 8 bits, a border as wide as the scale is cropped, and most papers use only the luma of
BT.601. Source: Wang et al. 2004 (SSIM); XPixelGroup/BasicSR `calculate_psnr` and `calculate_ssim`, with the same
numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["luma", "measure", "psnr", "ssim"]


def luma(image: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Y of BT.601 in 16/255 to 235/255, as in MATLAB's `rgb2ycbcr`; a grey image is returned unchanged.

    Example:
        >>> (luma(torch.ones(1, 3, 1, 1)) * 255).round().item()
        235.0
    """
    if image.shape[1] != 3:
        return image
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return (image * weights).sum(dim=1, keepdim=True) / 255 + 16 / 255


def psnr(
    image: Float[Tensor, "batch channels height width"], truth: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch"]:
    """Peak signal-to-noise ratio in dB of each image in 0-1; infinite for equal ones.

    Example:
        >>> round(psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1)).item(), 3)
        20.0
    """
    return -10 * (image - truth).square().mean(dim=(1, 2, 3)).log10()


def ssim(
    image: Float[Tensor, "batch channels height width"], truth: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch"]:
    """Structural similarity of each image in 0-1, at most 1: with a Gaussian window of 11 pixels and std 1.5.

    The mean is over the channels and the positions whose window lies inside the image.

    Raises:
        ValueError: the images are smaller than the window.

    Example:
        >>> ssim(torch.ones(1, 1, 11, 11), torch.ones(1, 1, 11, 11)).item()
        1.0
    """
    if min(image.shape[2:]) < 11:
        raise ValueError(f"SSIM needs 11 x 11 pixels; there are {image.shape[3]} x {image.shape[2]}")
    steps = torch.arange(-5, 6, dtype=image.dtype, device=image.device)
    window = (-steps.square() / (2 * 1.5**2)).exp()
    window = window / window.sum()

    def smooth(plane: Tensor) -> Tensor:
        flat = plane.flatten(0, 1).unsqueeze(1)
        return F.conv2d(F.conv2d(flat, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11)).view(
            *plane.shape[:2], plane.shape[2] - 10, plane.shape[3] - 10
        )

    one, two = smooth(image), smooth(truth)
    spread_one = smooth(image.square()) - one.square()
    spread_two = smooth(truth.square()) - two.square()
    together = smooth(image * truth) - one * two
    least, floor_spread = 0.01**2, 0.03**2
    similar = (2 * one * two + least) / (one.square() + two.square() + least)
    similar = similar * (2 * together + floor_spread) / (spread_one + spread_two + floor_spread)
    return similar.mean(dim=(1, 2, 3))


def measure(
    image: Float[Tensor, "batch channels height width"],
    truth: Float[Tensor, "batch channels height width"],
    border: int = 0,
) -> dict[str, Float[Tensor, "batch"]]:
    """PSNR and SSIM of each image, of its luma (`psnr_y`, `ssim_y`) and over its channels (`psnr`, `ssim`).

    Args:
        image: the restored image; it is rounded to 8 bits.
        truth: the high-quality image, in 0-1; rounded too.
        border: pixels that are cropped on each side; the scale in papers. SSIM is NaN for an image with fewer than 11
            pixels inside.

    Returns:
        In float64. The PSNR of equal images is given as 100 dB, so that means stay finite.

    Raises:
        ValueError: the border leaves nothing.

    Example:
        >>> truth = torch.rand(1, 3, 20, 20)
        >>> {name: round(value.item(), 3) for name, value in measure(truth, truth, border=2).items()}
        {'psnr_y': 100.0, 'ssim_y': 1.0, 'psnr': 100.0, 'ssim': 1.0}
    """
    height, width = image.shape[2:]
    if 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of {width} x {height}")
    inside = slice(border, height - border), slice(border, width - border)
    exact = [(part.double().clamp(0, 1) * 255).round()[..., *inside] / 255 for part in (image, truth)]
    found = {}
    for suffix, (one, two) in (("_y", [luma(part) for part in exact]), ("", exact)):
        found[f"psnr{suffix}"] = psnr(one, two).clamp(max=100)
        small = min(one.shape[2:]) < 11
        found[f"ssim{suffix}"] = torch.full_like(found[f"psnr{suffix}"], math.nan) if small else ssim(one, two)
    return found
