"""Attention rebalancing: raises the attention scores of image tokens that are salient in the vision tower.

Source: "Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large Vision-Language Model",
arXiv:2501.12206; hasanar1f/llava-hallunication-fix@c5ee7da (`clip_encoder.py`, `attention.py`). Extends PAI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..session.contract import Call, Edit, View
from ..session.layer_selection import layer_indices
from ..session.saliency import image_saliency
from ..session.streams import guidance
from .pai import raised

__all__ = ["Rebalance", "outliers", "strongest"]


@dataclass(frozen=True, kw_only=True)
class Rebalance:
    """Raise the scores z of the last row to z + alpha * |z| on local tokens and z + beta * |z| on summary tokens.

    Local tokens are the fraction `local` of image tokens with the highest attention of the tower's class token in its
    first layer; summary tokens are the outliers of the same attention in its second to last layer. A token that is both
    counts as summary. Without a class token, the attention that patches receive from all others is used; merged patches
    are averaged; the tokens of several tiles or images are ranked together. Cost: one more pass of the vision tower,
    the last row computed explicitly in the selected layers, and with gamma > 1 a second, image-free stream.

    Not included: the authors' "spatial" stream, off in their code, which sums a softmax over its own axis and so is 1.

    Attributes:
        alpha: for local tokens, at least 0; 0.7 in the authors' parser and best results, 0.9 in their script
            degrades the text.
        beta: for summary tokens, at least 0; 0.3 in the parser, 0.4 in the best results.
        local: fraction of image tokens that are local, 0-1.
        gamma: guidance scale as in PAI, at least 1; 1 disables it.
        plausible: tokens whose probability is below this fraction of the highest are excluded, 0-1; only with gamma.
        per_head: scale the increase of each head by its attention to the image relative to the highest in the layer.
            The paper's abstract mentions head-specific modulation without a formula or code; this rule is ours.
        layers: decoder layers, see `layer_indices`; the authors exclude the first two.

    Raises:
        ValueError: a value is out of its range; or, when a call begins, it has no image, or how the model's patches
            become tokens is not known.

    Example:
        >>> Rebalance(alpha=0.4, beta=0.2, gamma=1.0).local
        0.25
    """

    name: ClassVar[str] = "rebalance"
    alpha: float = 0.7
    beta: float = 0.3
    local: float = 0.25
    gamma: float = 1.1
    plausible: float = 0.1
    per_head: bool = False
    layers: str | Sequence[int] = "2:"

    def __post_init__(self) -> None:
        if min(self.alpha, self.beta) < 0 or not 0 <= self.local <= 1 or self.gamma < 1 or not 0 < self.plausible <= 1:
            raise ValueError(
                "Rebalance needs alpha and beta >= 0, local from 0 to 1, gamma >= 1 and 0 < plausible <= 1; got "
                f"alpha={self.alpha}, beta={self.beta}, local={self.local}, gamma={self.gamma}, "
                f"plausible={self.plausible}"
            )

    def begin(self, call: Call) -> Edit:
        """Run the vision tower and select the tokens."""
        call.given("pixel_values", self.name)
        image = call.image[:: call.beams]
        first, last = image_saliency(call.model, call.inputs, image)
        summary = outliers(last, image)
        local = strongest(first, image, self.local) & ~summary
        factor = call.expand(self.alpha * local.float() + self.beta * summary.float())
        columns = call.image.float()

        def edit(layer: int, logits: Tensor, view: View) -> Tensor:
            factors = view.where_edited(view.of_prompt(factor))
            if self.per_head:
                to_image = (logits.softmax(dim=-1) * view.of_prompt(columns)).sum(dim=-1, keepdim=True)
                factors = factors * to_image / to_image.amax(dim=1, keepdim=True).clamp(min=1e-12)
            return raised(logits, factors)

        return Edit(
            layers=layer_indices(self.layers, call.layers),
            rows="last",
            edit_logits=edit,
            process=guidance(call, self.gamma, self.plausible) if self.gamma > 1 else None,
            details={name: _positions(chosen) for name, chosen in (("local", local), ("summary", summary))},
        )


def strongest(
    scores: Float[Tensor, "samples tokens"], among: Bool[Tensor, "samples tokens"], share: float
) -> Bool[Tensor, "samples tokens"]:
    """The int(share * n) highest of each sample's n tokens.

    Example:
        >>> scores = torch.tensor([[0.1, 0.9, 0.5, 0.2]])
        >>> strongest(scores, torch.ones(1, 4, dtype=torch.bool), 0.5)
        tensor([[False,  True,  True, False]])
    """
    count = (share * among.sum(dim=-1, keepdim=True)).long()
    order = scores.masked_fill(~among, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return (rank < count) & among


def outliers(
    scores: Float[Tensor, "samples tokens"], among: Bool[Tensor, "samples tokens"]
) -> Bool[Tensor, "samples tokens"]:
    """Tokens whose score is above the third quartile by more than one and a half interquartile ranges.

    Quartiles are interpolated linearly, over each sample's own tokens.

    Example:
        >>> scores = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0]])
        >>> outliers(scores, torch.ones(1, 5, dtype=torch.bool))
        tensor([[False, False, False, False,  True]])
    """
    own = scores.float().masked_fill(~among, torch.nan)
    low, high = own.nanquantile(torch.tensor([0.25, 0.75], device=own.device), dim=-1, keepdim=True)
    return (own > high + 1.5 * (high - low)) & among


def _positions(chosen: Bool[Tensor, "samples tokens"]) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in chosen]
