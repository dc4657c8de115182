"""IBMIL written out for one bag.

Source: Lin et al. 2023, arXiv:2303.06873, equation 6; dazhangyu123/ACMIL@e53d19c architecture/ibmil.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, gated_scores, linear

__all__ = ["ibmil"]


def ibmil(
    weights: Weights, bag: Float[Tensor, "instances dim"], *, merge: Literal["cat", "add", "sub"] = "cat"
) -> BagOutput:
    """Attention pooling, and attention of the bag's vector z to the confounders c_j.

        z as in ABMIL;  u = softmax over j of (Q z) . (K c_j) / sqrt(joint)
        logits = C merge(z, sum_j u_j c_j) + f

    c is `confounder_feat`; Q and K are `W_q` and `W_k`; `merge` concatenates, adds or subtracts.
    """
    hidden = linear(weights, "dimreduction.fc1", bag).relu()
    attention = gated_scores(weights, "attention", hidden).softmax(dim=1)
    vector, confounders = attention[0] @ hidden, weights["confounder_feat"]
    query, keys = linear(weights, "W_q", vector), linear(weights, "W_k", confounders)
    common = (keys @ query / len(query) ** 0.5).softmax(dim=0) @ confounders
    features = {"cat": torch.cat([vector, common]), "add": vector + common, "sub": vector - common}[merge]
    return BagOutput(logits=linear(weights, "classifier", features), attention=attention, features=features)
