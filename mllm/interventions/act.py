"""ACT: attention calibration, which reduces the attention to sinks other than the first token.

Source: Yu et al. 2024, "Unveiling and Harnessing Hidden Attention Sinks: Enhancing Large Language Models without
Training through Attention Calibration", arXiv:2406.15765. Implemented from third-party notes on the paper, without
reference code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from ..session.contract import Call, Edit, View
from ..session.layer_selection import head_mask, layer_indices

__all__ = ["ACT"]


@dataclass(frozen=True, kw_only=True)
class ACT:
    """Multiply the attention to sinks by `beta`, and redistribute the freed mass over the other tokens.

    With attention weights a, the sinks S of a head are the columns with mean_rows(a_j) > alpha / tokens, without the
    first token. Edited rows become

        a_j <- beta * a_j                                          for j in S
        a_j <- a_j * (1 + (1 - beta) * sum_S a / (1 - sum_S a))    otherwise

    The paper averages over all rows of the prompt; here the mean is over the rows after the image, which are the edited
    ones. Cost: attention of the edited rows is computed explicitly in the selected layers.

    Attributes:
        alpha: threshold of a sink in units of the uniform weight 1 / tokens, above 1; 5 in the paper.
        beta: factor of a sink's attention, 0-1; 0.4 in the paper.
        heads: edited heads, in the form of `layer_indices`; the paper excludes heads in which sinks help, found on a
            calibration set.
        layers: decoder layers, see `layer_indices`; the first two are excluded by default.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> ACT(beta=0.2).alpha
        5.0
    """

    name: ClassVar[str] = "act"
    alpha: float = 5.0
    beta: float = 0.4
    heads: str | Sequence[int] = "all"
    layers: str | Sequence[int] = "2:"

    def __post_init__(self) -> None:
        if self.alpha <= 1 or not 0 <= self.beta < 1:
            raise ValueError(f"ACT needs alpha > 1 and beta from 0 to below 1; got {self.alpha} and {self.beta}")

    def begin(self, call: Call) -> Edit:
        """Find the sinks of every layer in the prefill."""
        heads = head_mask(self.heads, call.text_config.num_attention_heads, call.device)[:, None]
        beyond_first = call.valid & (call.valid.cumsum(dim=-1) > 1)
        tokens = call.valid.sum(dim=-1)
        sinks: dict[int, Bool[Tensor, "batch heads prompt"]] = {}

        def edit(layer: int, weights: Tensor, view: View) -> Tensor:
            if call.reading:
                sinks[layer] = self._sinks(weights, view, call, tokens) & beyond_first[:, None] & heads
            mine = sinks[layer][:, :, None, view.start : view.start + view.keys].to(weights.dtype)
            mine = functional.pad(mine, (0, view.keys - mine.shape[-1]))  # batch heads 1 keys
            sunk = (weights * mine).sum(dim=-1, keepdim=True)
            gain = view.where_edited((1 - self.beta) * sunk / (1 - sunk).clamp(min=1e-12))
            loss = view.where_edited(mine) * (1 - self.beta)
            return weights * torch.where(loss > 0, 1 - loss, 1 + gain)

        return Edit(layers=layer_indices(self.layers, call.layers), rows="after_image", edit_weights=edit)

    def _sinks(self, weights: Tensor, view: View, call: Call, tokens: Tensor) -> Bool[Tensor, "batch heads prompt"]:
        rows = weights.shape[2]
        positions = torch.arange(call.total - rows, call.total, device=weights.device)
        mine = weights.new_ones(1, 1, rows, 1) if view.rows is None else view.rows.to(weights.dtype)
        mine = mine * (positions < call.prompt)[:, None]  # not the rows of a given answer
        mean = (weights * mine).sum(dim=2) / mine.sum(dim=2).clamp(min=1)  # batch heads keys
        found = torch.zeros(*mean.shape[:2], call.prompt, dtype=torch.bool, device=weights.device)
        part = found[..., view.start : view.start + view.keys]
        part[:] = mean[..., : part.shape[-1]] > self.alpha / tokens[:, None, None]
        return found
