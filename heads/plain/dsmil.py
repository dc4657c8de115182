"""DSMIL written out for one bag.

Source: Li et al. 2021, arXiv:2011.08939, equations 3 to 7; binli123/dsmil-wsi@80465ed dsmil.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from ..contract import BagOutput, Criterion
from .layers import Weights, linear

__all__ = ["dsmil"]


def dsmil(
    weights: Weights,
    bag: Float[Tensor, "instances dim"],
    label: Shaped[Tensor, "..."],
    *,
    criterion: Criterion = F.cross_entropy,
) -> BagOutput:
    """The critical instance of each class c, and the bag pooled by similarity to it.

        s_ic = W_c bag_i + b_c;  m_c = argmax over i of s_ic
        a_c = softmax over i of q(bag_i) . q(bag_(m_c)) / sqrt(hidden);  z_c = sum_i a_ci v(bag_i)
        logits_d = sum over c of F_dc . z_c + f_d

    The loss is half that of `logits` and half that of max over i of s_ic (`max`). W is `i_classifier.fc.0`; q, v and F
    are `b_classifier.q`, `.v` and `.fcc`; v is the identity where the head has none.
    """
    scores = linear(weights, "i_classifier.fc.0", bag)  # instances classes
    if "b_classifier.q.weight" in weights:
        queries = linear(weights, "b_classifier.q", bag)
    else:
        queries = linear(weights, "b_classifier.q.2", linear(weights, "b_classifier.q.0", bag).relu()).tanh()
    critical = queries[scores.argmax(dim=0)]  # classes hidden
    attention = (critical @ queries.T / queries.shape[1] ** 0.5).softmax(dim=1)  # classes instances
    values = linear(weights, "b_classifier.v.1", bag).relu() if "b_classifier.v.1.weight" in weights else bag
    features = attention @ values  # classes dim
    logits = torch.einsum("dcf,cf->d", weights["b_classifier.fcc.weight"], features) + weights["b_classifier.fcc.bias"]
    losses = {"max": 0.5 * criterion(scores.max(dim=0).values[None], label[None])}
    return BagOutput(logits=logits, attention=attention, losses=losses, features=features, bag_weight=0.5)
