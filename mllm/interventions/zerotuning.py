"""ZeroTuning: scales the attention to the first token.

Source: Han et al. 2025, "ZeroTuning: Unlocking the Initial Token's Power to Enhance Large Language Models Without
Training", arXiv:2505.11739. Implemented from third-party notes on the paper, without reference code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..session.contract import Call, Edit, View
from ..session.layer_selection import head_mask, layer_indices

__all__ = ["ZeroTuning"]


@dataclass(frozen=True, kw_only=True)
class ZeroTuning:
    """Multiply the attention to the first token by `gamma`, and normalise each row.

    With attention weights a: a_0 <- gamma * a_0, then a <- a / sum(a).

    The first token is the usual sink: gamma < 1 strengthens the differences among the other tokens, gamma > 1 weakens
    them. Rows after the image are edited. Cost: attention of these rows is computed explicitly in the selected layers.

    Attributes:
        gamma: factor, at least 0, other than 1. The paper tunes it per task; the default 0.6 is
            ours.
        heads: edited heads, in the form of `layer_indices`; the paper selects heads by profiling.
        layers: decoder layers, see `layer_indices`.

    Raises:
        ValueError: gamma is negative or 1.

    Example:
        >>> ZeroTuning(gamma=1.5, heads="0,3").layers
        'all'
    """

    name: ClassVar[str] = "zerotuning"
    gamma: float = 0.6
    heads: str | Sequence[int] = "all"
    layers: str | Sequence[int] = "all"

    def __post_init__(self) -> None:
        if self.gamma < 0 or self.gamma == 1:
            raise ValueError(f"ZeroTuning multiplies by gamma, at least 0 and not 1; got {self.gamma}")

    def begin(self, call: Call) -> Edit:
        """Find each sample's first token after the padding."""
        heads = head_mask(self.heads, call.text_config.num_attention_heads, call.device)[:, None, None]
        first = torch.zeros_like(call.valid).scatter(1, call.valid.int().argmax(dim=-1, keepdim=True), True).float()

        def edit(layer: int, weights: Tensor, view: View) -> Tensor:
            on_first = view.where_edited(view.of_prompt(first) * heads)  # batch heads rows keys
            edited = torch.addcmul(weights, weights, on_first, value=self.gamma - 1)
            return edited / edited.sum(dim=-1, keepdim=True)

        return Edit(layers=layer_indices(self.layers, call.layers), rows="after_image", edit_weights=edit)
