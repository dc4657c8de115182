"""ABMIL written out for one bag.

Source: Ilse et al. 2018, arXiv:1802.04712, equations 7 to 9.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, gated_scores, linear

__all__ = ["abmil"]


def abmil(weights: Weights, bag: Float[Tensor, "instances dim"]) -> BagOutput:
    """Attention pooling and a linear classifier.

        h_i = ReLU(W bag_i + b)
        a = softmax over i of w . (tanh(V h_i + c) * sigmoid(U h_i + d)) + e
        logits = C sum_i a_i h_i + f

    W, b are `dimreduction.fc1`; V, U, w are `attention.*`; C, f are `classifier.fc`.
    """
    hidden = linear(weights, "dimreduction.fc1", bag).relu()
    attention = gated_scores(weights, "attention", hidden).softmax(dim=1)  # 1 instances
    features = attention[0] @ hidden
    return BagOutput(logits=linear(weights, "classifier.fc", features), attention=attention, features=features)
