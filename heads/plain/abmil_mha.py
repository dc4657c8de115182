"""ABMIL with multi-head attention written out for one bag.

Source: dazhangyu123/AEM@4a928a8 architecture/transformer.py, MHA.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, linear, query_attention, read_values

__all__ = ["abmil_mha"]


def abmil_mha(weights: Weights, bag: Float[Tensor, "instances dim"], *, heads: int = 8) -> BagOutput:
    """A learned query with several heads reads the bag.

        h_i = ReLU(W bag_i)
        a_k = softmax over i of (Q q)_k . (K h_i)_k / sqrt(width / heads)
        z = LayerNorm(O concat_k(sum_i a_ki (V h_i)_k));  logits = C z + f

    W is `dimreduction.fc1`; q, Q, K, V, O are `q` and `attention.*`; C, f are `classifier.fc`.
    """
    instances = linear(weights, "dimreduction.fc1", bag).relu()
    attention = query_attention(weights, "attention", weights["q"][0, 0], instances, heads).softmax(dim=1)
    features = read_values(weights, "attention", attention, instances)
    return BagOutput(logits=linear(weights, "classifier.fc", features), attention=attention, features=features)
