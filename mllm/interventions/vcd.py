"""VCD: visual contrastive decoding, which contrasts the logits with those for a noisy image.

Source: Leng et al., CVPR 2024, arXiv:2311.16922; DAMO-NLP-SG/VCD@d6568ff (`vcd_add_noise.py`, `vcd_sample.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..session.contract import Call, Edit
from ..session.streams import Stream, contrast

__all__ = ["VCD", "diffused"]

_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class VCD:
    """Logits (1 + alpha) * z - alpha * z', with z' the logits of the prompt with a diffused image.

    Tokens below `plausible` times the highest probability are excluded. The authors always sample, and report gains
    over sampling; greedy decoding uses the largest logit. Cost: a second stream with an image.

    Attributes:
        alpha: strength of the contrast, at least 0; 1 in the authors' scripts, 0.5 in their code.
        plausible: tokens whose probability is below this fraction of the highest are excluded, 0-1.
        step: diffusion step of the image, 0-999; 500 for questions in the authors' scripts, 999 is pure noise.
        seed: of the noise, which is the same for all images of one size, so that results do not depend on batches.

    Raises:
        ValueError: a value is out of its range; or, when a call begins, it has no image.

    Example:
        >>> VCD(step=999).alpha
        1.0
    """

    name: ClassVar[str] = "vcd"
    alpha: float = 1.0
    plausible: float = 0.1
    step: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.alpha < 0 or not 0 <= self.plausible <= 1 or not 0 <= self.step < _STEPS:
            raise ValueError(
                f"VCD needs alpha >= 0, plausible from 0 to 1 and step from 0 to {_STEPS - 1}; got alpha={self.alpha}, "
                f"plausible={self.plausible}, step={self.step}"
            )

    def begin(self, call: Call) -> Edit:
        """Diffuse the image and start its stream."""
        pixels, grids = call.given("pixel_values", self.name), call.inputs.get("image_grid_thw")
        lengths = [1] * len(pixels) if grids is None else grids.prod(dim=-1).tolist()  # rows of each image
        noisy = [diffused(image, self.step, seed=self.seed) for image in pixels.split(lengths)]
        stream = Stream.with_pixels(call, torch.cat(noisy))

        def combine(scores: Tensor, other: Tensor) -> Tensor:
            return (1 + self.alpha) * scores - self.alpha * other

        return Edit(process=contrast(call, stream.scores, combine, self.plausible))


def diffused(pixels: Float[Tensor, "*any"], step: int, *, seed: int = 0) -> Float[Tensor, "*any"]:
    """Normalised pixels after `step` steps of the forward process of a diffusion model.

    Args:
        pixels: normalised, of any shape.
        step: 0-999.
        seed: of the noise, the same on every device.

    Example:
        >>> bool((diffused(torch.ones(3), 0) - 1).abs().max() < 0.02)
        True
    """
    ramp = torch.linspace(-6, 6, _STEPS, dtype=torch.float64).sigmoid()
    kept = (1 - (ramp * (0.5e-2 - 1e-5) + 1e-5)).cumprod(dim=0)[step]
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed)).to(pixels)
    return kept.sqrt().item() * pixels + (1 - kept).sqrt().item() * noise
