"""ACMIL with multi-head attention written out for one bag.

Source: Zhang et al. 2023, arXiv:2311.07125; dazhangyu123/ACMIL@e53d19c, ACMIL_MHA.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import BagOutput
from .acmil import diversity
from .layers import Weights, linear, query_attention, read_values

__all__ = ["acmil_mha"]


def acmil_mha(
    weights: Weights, bag: Float[Tensor, "instances dim"], label: Int[Tensor, ""], *, heads: int = 8
) -> BagOutput:
    """Branches b, each a learned query with several heads; the slide is read under their mean attention.

        h_i = ReLU(W bag_i);  a_b = softmax over i of the scores of the query q_b (see `query_attention`)
        branches: mean over b of CE(C_b read_b(a_b, h), label), where read_b is `read_values` of branch b
        diversity: mean over heads and pairs of branches of the cosine similarity of their attention
        logits = C read(mean_b a_b, h) + f

    q_b is `q[0, b]`, its layers `sub_attention.b`; the last reading is by `bag_attention`.
    """
    instances = linear(weights, "dimreduction.fc1", bag).relu()
    found, branches = [], []
    for number, query in enumerate(weights["q"][0]):
        attention = query_attention(weights, f"sub_attention.{number}", query, instances, heads).softmax(dim=1)
        vector = read_values(weights, f"sub_attention.{number}", attention, instances)
        branches.append(linear(weights, f"classifier.{number}.fc", vector))
        found.append(attention)
    maps = torch.stack(found)  # branches heads instances
    losses = {
        "branches": F.cross_entropy(torch.stack(branches), label.expand(len(branches))),
        "diversity": torch.stack([diversity(maps[:, head]) for head in range(heads)]).mean(),
    }
    features = read_values(weights, "bag_attention", maps.mean(dim=0), instances)
    logits = linear(weights, "Slide_classifier.fc", features)
    return BagOutput(logits=logits, attention=maps.flatten(0, 1), losses=losses, features=features)
