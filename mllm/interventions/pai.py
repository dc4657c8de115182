"""PAI: pay more attention to the image. Raise the scores of image columns, and contrast with the text alone.

Source: Liu, Zheng and Chen, ECCV 2024, arXiv:2407.21771; LALBJ/PAI@9bbd8bd (`llama_new_forward`, `CFGLogits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..session.contract import Call, Edit
from ..session.layer_selection import layer_indices
from ..session.streams import guidance

__all__ = ["PAI", "raised"]


@dataclass(frozen=True, kw_only=True)
class PAI:
    """Raise every image score z of the newest row to z + alpha |z|; then weigh against the answer without the image.

    The authors' code edits after the mask is added and keeps one image span for a whole batch; here hidden columns
    stay hidden and every sample has its own columns. Their examples use alpha 0.2 and gamma 1.1 for LLaVA-1.5.

    Attributes:
        alpha: how much the scores of image columns rise, at least 0; 0.2 in the authors' examples, up to 0.5 in use.
        gamma: weight of the answer with the image against the one without: gamma (s - u) + u, s and u the log
            probabilities with and without; 1 turns this half off and saves its cost.
        plausible: words less likely than this share of the likeliest one are ruled out, 0-1; only with gamma.
        layers: decoder layers whose attention is edited, as in `layer_indices`; the authors leave out the first two.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> PAI(alpha=0.5, gamma=1.0).name
        'pai'
    """

    name: ClassVar[str] = "pai"
    alpha: float = 0.2
    gamma: float = 1.1
    plausible: float = 0.1
    layers: str | Sequence[int] = "2:"

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.gamma < 1 or not 0 < self.plausible <= 1:
            raise ValueError(
                f"PAI needs alpha >= 0, gamma >= 1 and 0 < plausible <= 1; got alpha={self.alpha}, "
                f"gamma={self.gamma}, plausible={self.plausible}"
            )

    def begin(self, call: Call) -> Edit:
        """Mark the image columns; open the stream without the image if `gamma` asks for it."""
        factor = self.alpha * call.image.float()  # batch prompt
        return Edit(
            layers=layer_indices(self.layers, call.layers) if self.alpha else (),
            rows="last",
            edit_logits=lambda layer, logits, view: raised(logits, view.where_edited(view.of_prompt(factor))),
            process=guidance(call, self.gamma, self.plausible) if self.gamma > 1 else None,
        )


def raised(
    logits: Float[Tensor, "batch heads rows keys"], factors: Float[Tensor, "batch #heads #rows keys"]
) -> Float[Tensor, "batch heads rows keys"]:
    """Scores z + factor |z|.

    Example:
        >>> raised(torch.tensor([[[[-1.0, 2.0, 3.0]]]]), torch.tensor([[[[0.5, 0.5, 0.0]]]]))
        tensor([[[[-0.5000,  3.0000,  3.0000]]]])
    """
    return torch.addcmul(logits, logits.abs(), factors.to(logits.dtype))
