"""AEM: attention entropy maximisation, a regulariser for heads with attention.

Paper: Zhang et al. 2024, "AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image
Classification", arXiv:2406.15303; code dazhangyu123/AEM@4a928a8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .contract import BagOutput

__all__ = ["AEM", "negative_entropy"]


@dataclass(frozen=True, kw_only=True)
class AEM:
    """A loss term that spreads attention: weight * sum over instances of a ln a, the negative entropy.

    It is the mean over the maps of a head and over the bags, as in the authors' code for one head, for eight heads and
    for the classes of DSMIL.

    Attributes:
        weight: lambda, at smallest 0; 0.1 in the authors' README. With few bags that have many positive instances it
            can cost accuracy.
        schedule: `"constant"` as in the released code, or `"cosine"`, from `weight` down to 0 over the training. The
            paper calls that cosine weight annealing; its exact form is ours, as the released code has none.
        normalise: whether to divide by ln of the number of instances, so that the weight has the same effect for
            small and large bags. The authors do not: their term ranges from -ln N to 0.

    Raises:
        ValueError: the weight is negative; in a call, `progress` is outside 0 to 1, or the head has no attention.

    Example:
        >>> even = BagOutput(logits=torch.zeros(2), attention=torch.full((1, 4), 0.25))
        >>> AEM(weight=0.1)(even)  # 0.1 times -ln 4
        tensor(-0.1386)
    """

    weight: float = 0.1
    schedule: Literal["constant", "cosine"] = "constant"
    normalise: bool = False

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(
                f"the weight of AEM is {self.weight}; give 0 or more, e.g. 0.1 (positive spreads attention)"
            )
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"the schedule of AEM is {self.schedule!r}; give constant or cosine")

    def weight_at(self, progress: float) -> float:
        """The weight at `progress`, the completed share of the training, 0 to 1.

        Example:
            >>> AEM(weight=0.2, schedule="cosine").weight_at(0.5)
            0.1
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}; give the completed share of the training, from 0 to 1")
        return self.weight if self.schedule == "constant" else self.weight / 2 * (1 + math.cos(math.pi * progress))

    def __call__(
        self, output: BagOutput, *, progress: float = 0.0, valid: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, ""]:
        """The term to add to the loss.

        Args:
            output: output of a head with attention.
            progress: completed share of the training, 0 to 1; used by the cosine schedule.
            valid: True for instances, False for padding; used if `normalise` is set.
        """
        if output.attention is None:
            raise ValueError("AEM needs a head with attention, such as abmil, clam_sb, dsmil or acmil")
        entropy = negative_entropy(output.attention)
        if self.normalise:
            count = output.attention.new_tensor(output.attention.shape[-1])
            counts = count if valid is None else valid.sum(dim=-1, keepdim=True)
            entropy = entropy / counts.clamp(min=2).log()  # one instance: 0 either way
        return self.weight_at(progress) * entropy.mean()


def negative_entropy(attention: Float[Tensor, "... instances"]) -> Float[Tensor, "..."]:
    """The sum of a ln a over the instances, from -ln N (uniform) to 0 (one instance); 0 ln 0 is 0.

    Example:
        >>> negative_entropy(torch.tensor([0.5, 0.5, 0.0]))
        tensor(-0.6931)
    """
    smallest = torch.finfo(attention.dtype).tiny
    return (attention * attention.clamp(min=smallest).log()).sum(dim=-1)
