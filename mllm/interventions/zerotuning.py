"""ZeroTuning: turn the attention to the very first token up or down.

Source: Han et al. 2025, "ZeroTuning: Unlocking the Initial Token's Power to Enhance Large Language Models Without
Training", arXiv:2505.11739. Written from third-party notes on the paper; no code was compared with.
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
    """Multiply the first token's attention by `gamma` and let each row sum to 1 again.

    The first token is the usual sink: with less on it (gamma < 1) the differences among the other tokens count for
    more, with more on it for less. Rows after the image are edited.

    Attributes:
        gamma: factor, at least 0, other than 1. The paper tunes it for each task; it gives no universal value, 0.6
            here is ours.
        heads: heads that are edited, as in `layer_indices`; the paper profiles which heads gain from it.
        layers: decoder layers, as in `layer_indices`.

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
