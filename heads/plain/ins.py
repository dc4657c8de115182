"""The prediction of INS written out for one bag.

Source: Qu et al. 2023, arXiv:2307.02249, section 3.2; its training losses depend on a queue and on prototypes, and
are in `regard.heads.ins`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, linear

__all__ = ["ins"]


def ins(weights: Weights, bag: Float[Tensor, "instances dim"]) -> BagOutput:
    """An instance classifier, and the mean of its probabilities.

        p_i = softmax(C ReLU(W bag_i + b) + f);  logits = ln(mean over i of p_i);  attention_ci = p_ic / sum_i p_ic

    W, b are `encoder.0`; C, f are `fc`.
    """
    probabilities = linear(weights, "fc", linear(weights, "encoder.0", bag).relu()).softmax(dim=1)
    attention = (probabilities / probabilities.sum(dim=0)).T
    return BagOutput(logits=probabilities.mean(dim=0).log(), attention=attention)
