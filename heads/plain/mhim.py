"""MHIM with attention pooling written out for one bag, without merged tokens (version 1).

Source: Tang et al. 2023, arXiv:2307.15254, section 3; DearCaat/MHIM-MIL branch v1 modules/mhim.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, linear

__all__ = ["mhim"]


def mhim(
    weights: Weights,
    bag: Float[Tensor, "instances dim"],
    *,
    kept: Int[Tensor, "kept"] | None = None,
    activation: Callable[[Tensor], Tensor] = torch.relu,
    consistency: float = 0.1,
    temperature: float = 0.1,
) -> BagOutput:
    """The student gets the instances that the teacher does not mask, and is pulled towards the teacher's vector.

        h_i = activation(W bag_i + b);  a = softmax over i of w . ReLU(V h_i);  z = sum_i a_i h_i
        logits = C z_student + f
        consistency: -sum over channels of softmax(z_teacher / temperature) ln softmax(z_student)

    Args:
        weights: of the head: `student.*` and `teacher.*`.
        bag: one.
        kept: indices of the instances that are not masked; None for evaluation, in which the student gets all.
        activation: of the projection; ReLU in version 1, GELU in version 2.
        consistency: weight of the loss.
        temperature: of the teacher's distribution.
    """

    def encode(who: str, instances: Tensor) -> tuple[Tensor, Tensor]:
        hidden = activation(linear(weights, f"{who}.feature.0", instances))
        name = f"{who}.online_encoder.attention.attention"
        share = linear(weights, f"{name}.2", linear(weights, f"{name}.0", hidden).relu()).softmax(dim=0)[:, 0]
        return share @ hidden, share

    seen = torch.arange(len(bag)) if kept is None else kept
    features, share = encode("student", bag[seen])
    attention = torch.zeros(1, len(bag), dtype=bag.dtype).index_copy(1, seen, share[None])
    losses = {}
    if kept is not None:
        target = (encode("teacher", bag)[0].detach() / temperature).softmax(dim=0)
        losses["consistency"] = -consistency * (target * features.log_softmax(dim=0)).sum()
    logits = linear(weights, "student.predictor", features)
    return BagOutput(logits=logits, attention=attention, losses=losses, features=features)
