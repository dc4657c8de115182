"""PAI: pays more attention to the image by raising its attention scores, with classifier-free guidance.

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
    """Raise the attention scores z of image columns to z + alpha * |z|, and apply classifier-free guidance.

    The scores are those of the last row, before the softmax. The log probabilities of the next token become
    gamma * (s - u) + u, with s with the image and u without it. Cost: the last row is computed explicitly in the
    selected layers; with gamma > 1 a second, image-free stream.

    Differences from the authors' code: it edits after the mask is added and has one image span for a whole batch; here
    masked columns stay masked and every sample has its own image columns.

    Attributes:
        alpha: increase of image scores, at least 0; 0.2 in the authors' examples for LLaVA-1.5, up to 0.5 in use.
        gamma: guidance scale, at least 1; 1.1 in the authors' examples. 1 disables guidance and its cost.
        plausible: tokens whose probability is below this fraction of the highest are excluded, 0-1; only with gamma.
        layers: decoder layers whose attention is edited, see `layer_indices`; the authors exclude the first two.

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
        """Mark the image columns; start the image-free stream if `gamma` is above 1."""
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
    """Scores z + factors * |z|.

    Example:
        >>> raised(torch.tensor([[[[-1.0, 2.0, 3.0]]]]), torch.tensor([[[[0.5, 0.5, 0.0]]]]))
        tensor([[[[-0.5000,  3.0000,  3.0000]]]])
    """
    return torch.addcmul(logits, logits.abs(), factors.to(logits.dtype))
