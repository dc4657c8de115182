"""ACMIL with gated attention written out for one bag.

Source: Zhang et al. 2023, arXiv:2311.07125, sections 3.2 and 3.3; dazhangyu123/ACMIL@e53d19c, ACMIL_GA.
"""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, gated_scores, hide_drawn, linear

__all__ = ["acmil", "diversity"]


def acmil(
    weights: Weights,
    bag: Float[Tensor, "instances dim"],
    label: Int[Tensor, ""],
    *,
    drawn: Float[Tensor, "branches top"] | None = None,
    hide_rate: float = 0.6,
) -> BagOutput:
    """Attention branches k with a classifier each, and one classifier of their mean.

        h_i = ReLU(W bag_i);  a_k = softmax over i of the gated scores s_ki (see `gated_scores`)
        branches: mean over k of CE(C_k sum_i a_ki h_i, label)
        diversity: mean over pairs k < l of cos(a_k, a_l)
        logits = C mean_k(sum_i a_ki h_i) + f

    C_k are `classifier.k.fc`; C, f are `Slide_classifier.fc`. With `drawn`, STKIM hides instances (see `hide_drawn`).
    """
    hidden = linear(weights, "dimreduction.fc1", bag).relu()
    scores = gated_scores(weights, "attention", hidden)  # branches instances
    attention = (scores if drawn is None else hide_drawn(scores, drawn, hide_rate)).softmax(dim=1)
    vectors = attention @ hidden  # branches width
    branches = torch.stack([linear(weights, f"classifier.{k}.fc", vector) for k, vector in enumerate(vectors)])
    losses = {"branches": F.cross_entropy(branches, label.expand(len(branches))), "diversity": diversity(attention)}
    features = vectors.mean(dim=0)
    logits = linear(weights, "Slide_classifier.fc", features)
    return BagOutput(logits=logits, attention=attention, losses=losses, features=features)


def diversity(attention: Float[Tensor, "branches instances"]) -> Float[Tensor, ""]:
    """Mean cosine similarity of the attention of two branches."""
    return torch.stack([F.cosine_similarity(one, other, dim=0) for one, other in combinations(attention, 2)]).mean()
