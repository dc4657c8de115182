"""Blur kernels: anisotropic, generalised and plateau-shaped Gaussians, and the ideal low pass.

Source: Wang et al. 2021, arXiv:2107.10833 (Real-ESRGAN), section 3.1 and appendix; the generalised and the plateau
form are those of Liu et al. 2020, arXiv:2005.12573.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float

__all__ = ["SHAPES", "Blur", "gaussian_kernel", "sinc_kernel"]

#: Shapes of a random kernel.
SHAPES = ("iso", "aniso", "generalised_iso", "generalised_aniso", "plateau_iso", "plateau_aniso")


def gaussian_kernel(
    side: int,
    sigma: tuple[float | int, float | int],
    angle: float | int = 0.0,
    *,
    beta: float | int = 1.0,
    plateau: bool = False,
) -> Float[np.ndarray, "side side"]:
    """Compute a Gaussian, exp(-q / 2), or exp(-q^beta / 2), or the plateau 1 / (1 + q^beta), normalised to sum 1.

    q is the squared distance from the centre, in units of the two standard deviations along axes rotated by `angle`.

    Args:
        side: odd, in pixels.
        sigma: standard deviations in pixels, above 0.
        angle: in radians.
        beta: above 0; below 1 more peaked, above 1 flatter.
        plateau: use the plateau.

    Raises:
        ValueError: `side` is even, or a number is not positive.

    Example:
        >>> gaussian_kernel(3, (0.5, 0.5)).round(3).tolist()
        [[0.011, 0.084, 0.011], [0.084, 0.619, 0.084], [0.011, 0.084, 0.011]]
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"the side of a kernel must be odd, not {side}")
    if min(*sigma, beta) <= 0:
        raise ValueError(f"sigma {sigma} and beta {beta} must be positive")
    steps = np.arange(side) - side // 2
    across, down = np.meshgrid(steps, steps)
    along_axis = across * np.cos(angle) + down * np.sin(angle)
    across_axis = down * np.cos(angle) - across * np.sin(angle)
    distance = (along_axis / sigma[0]) ** 2 + (across_axis / sigma[1]) ** 2
    kernel = 1 / (1 + distance**beta) if plateau else np.exp(-0.5 * distance**beta)
    return kernel / kernel.sum()


def sinc_kernel(side: int, cutoff: float | int) -> Float[np.ndarray, "side side"]:
    """Compute the isotropic ideal low pass, which rings and overshoots as sharpened and compressed images do.

    Args:
        side: odd, in pixels.
        cutoff: highest frequency that passes, in radians per pixel, above 0 and at most pi.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> round(float(sinc_kernel(7, 2.0)[3, 3]), 4)
        0.3925
    """
    if side < 1 or side % 2 == 0 or not 0 < cutoff <= np.pi:
        raise ValueError(f"side {side} must be odd, and cutoff {cutoff} above 0 and at most pi")
    steps = np.arange(side) - side // 2
    radius = np.hypot(*np.meshgrid(steps, steps))
    far = np.where(radius == 0, 1.0, radius)
    kernel = np.where(radius == 0, cutoff**2 / (4 * np.pi), cutoff * scipy.special.j1(cutoff * far) / (2 * np.pi * far))
    return kernel / kernel.sum()


@dataclass(frozen=True, kw_only=True)
class Blur:
    """How the random blur kernel of a round of degradation is drawn.

    Attributes:
        sides: odd kernel sides to draw from.
        shares: probability of each of `SHAPES`; they add up to 1.
        sigma: range of the standard deviations, in pixels.
        generalised: range of beta of the generalised forms.
        plateau: range of beta of the plateau.
        sinc: probability of the ideal low pass instead, 0-1.

    Raises:
        ValueError: the shares do not add up to 1.
    """

    sides: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    shares: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sigma: tuple[float | int, float | int] = (0.2, 3.0)
    generalised: tuple[float, float] = (0.5, 4.0)
    plateau: tuple[float, float] = (1.0, 2.0)
    sinc: float = 0.1

    def __post_init__(self) -> None:
        if len(self.shares) != len(SHAPES) or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(
                f"shares {self.shares} must be {len(SHAPES)} numbers that add up to 1: {', '.join(SHAPES)}"
            )

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, "side side"]:
        """Draw a kernel."""
        side = int(rng.choice(self.sides))
        if rng.random() < self.sinc:
            return self.draw_sinc(side, rng)
        shape = SHAPES[int(rng.choice(len(SHAPES), p=self.shares))]
        one = rng.uniform(*self.sigma)
        two = one if shape.endswith("_iso") or shape == "iso" else rng.uniform(*self.sigma)
        beta = 1.0
        if shape.startswith(("generalised", "plateau")):
            low, high = self.generalised if shape.startswith("generalised") else self.plateau
            beta = rng.uniform(low, 1.0) if low < 1 and rng.random() < 0.5 else rng.uniform(max(low, 1.0), high)
        return gaussian_kernel(
            side, (one, two), rng.uniform(-np.pi, np.pi), beta=beta, plateau=shape.startswith("plateau")
        )

    @staticmethod
    def draw_sinc(side: int, rng: np.random.Generator) -> Float[np.ndarray, "side side"]:
        """Draw an ideal low pass with a random cutoff."""
        return sinc_kernel(side, rng.uniform(np.pi / 3 if side < 13 else np.pi / 5, np.pi))
