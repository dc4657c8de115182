"""VHR: vision-aware head reinforcement, which amplifies the attention heads that the image changes most.

Source: He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025,
arXiv:2412.13949, equations 4, 6 and 7 and algorithm 1. The authors' code was not available for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..session.contract import Call, Edit
from ..session.layer_selection import layer_indices

__all__ = ["VHR", "HeadDivergence", "head_divergence"]


@dataclass(frozen=True, kw_only=True)
class VHR:
    """In each layer, multiply the outputs of the heads that the image changes most by `alpha`.

    With h_i the output of head i at the last token of the prompt and h'_i the same without the image, the divergence is
    d_i = ||h_i - h'_i||. Heads with d_i above the layer's median are multiplied by `alpha`, in all rows of the call;
    heads that are outliers in both d_i and ||h'_i||^2 count as d_i = 0. Cost: an image-free prefill in lockstep, layer
    by layer, in which the heads of earlier layers are amplified too; nothing per token.

    Attributes:
        alpha: factor of the selected heads, above 0; 2 in the paper. Far above 3 the text degrades.
        layers: decoder layers, see `layer_indices`. In the paper: the second and the last 14 for LLaVA-1.5 and
            LLaVA-NeXT 7B, the last 18 for InstructBLIP-7B.
        outliers: exclude heads whose divergence and image-free norm both exceed mean + standard deviation of the layer;
            the paper's rule.
        squared: use squared distances, as in a third-party port; this changes the outliers, not the median.
        std: standard deviation of the outlier rule: population or sample; the paper does not specify it.
        reinforce_both: amplify the image-free pass too, as "previous layers are already reinforced" suggests.

    Raises:
        ValueError: `alpha` is not above 0.

    Example:
        >>> VHR(alpha=1.5, layers="1,-4:").alpha
        1.5
    """

    name: ClassVar[str] = "vhr"
    alpha: float = 2.0
    layers: str | Sequence[int] = "1,-14:"
    outliers: bool = True
    squared: bool = False
    std: Literal["population", "sample"] = "population"
    reinforce_both: bool = True

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"VHR multiplies heads by alpha, which is above 0; got {self.alpha}")

    def begin(self, call: Call) -> Edit:
        """Select heads in the prefill."""
        has_image = call.image.any(dim=-1, keepdim=True)
        chosen: dict[int, list[list[int]]] = {}

        def scale(layer: int, heads: Tensor, without: Tensor) -> Tensor:
            found = head_divergence(heads, without, outliers=self.outliers, squared=self.squared, std=self.std)
            selected = found.selected & has_image
            chosen[layer] = [row.nonzero().flatten().tolist() for row in selected]
            return torch.where(selected, self.alpha, 1.0)

        return Edit(
            layers=layer_indices(self.layers, call.layers),
            scale_heads=scale,
            paired=True,
            scales_pair=self.reinforce_both,
            details={"heads": chosen},
        )


class HeadDivergence(NamedTuple):
    """Effect of the image on each head of one layer; all are (batch, heads).

    Attributes:
        divergence: distance between the heads' outputs with and without the image; 0 for outliers.
        squared_norm: squared norm of the output without the image.
        outlier: heads with high divergence and high image-free norm.
        selected: heads above the median.
    """

    divergence: Float[Tensor, "batch heads"]
    squared_norm: Float[Tensor, "batch heads"]
    outlier: Bool[Tensor, "batch heads"]
    selected: Bool[Tensor, "batch heads"]


def head_divergence(
    with_image: Float[Tensor, "batch heads head_dim"],
    without: Float[Tensor, "batch heads head_dim"],
    *,
    outliers: bool = True,
    squared: bool = False,
    std: Literal["population", "sample"] = "population",
) -> HeadDivergence:
    """Compare the heads of one layer at the last token of the prompt, with and without the image.

    Differences within rounding error count as 0, so that a layer whose window does not reach the image selects no
    heads.

    Args:
        with_image: output of each head, before the projection that mixes them.
        without: the same without the image.
        outliers: apply the outlier rule.
        squared: use the squared distance.
        std: of the outlier rule.

    Example:
        >>> heads = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]])
        >>> head_divergence(heads, torch.zeros(1, 4, 2)).selected
        tensor([[ True, False,  True, False]])
    """
    with_image, without = with_image.float(), without.float()
    divergence = (with_image - without).square().sum(dim=-1)
    squared_norm = without.square().sum(dim=-1)
    rounding = torch.finfo(torch.float32).eps ** 1.5 * (with_image.square().sum(dim=-1) + squared_norm)
    divergence = divergence.masked_fill(divergence < rounding, 0)
    divergence = divergence if squared else divergence.sqrt()
    correction = 0 if std == "population" else 1
    outlier = _stands_out(divergence, correction) & _stands_out(squared_norm, correction)
    if outliers:
        divergence = divergence.masked_fill(outlier, 0)
    else:
        outlier = torch.zeros_like(outlier)
    middle = divergence.quantile(0.5, dim=-1, keepdim=True)
    return HeadDivergence(divergence, squared_norm, outlier, divergence > middle)


def _stands_out(values: Tensor, correction: int) -> Tensor:
    limit = values.mean(dim=-1, keepdim=True) + values.std(dim=-1, keepdim=True, correction=correction)
    return values > limit
