"""DTFD written out for one bag.

Source: Zhang et al. 2022, arXiv:2203.12081, section 3; hrzhang1123/DTFD-MIL@10964f4 Main_DTFD_MIL.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, gated_scores, linear

__all__ = ["dtfd"]


def dtfd(
    weights: Weights,
    bag: Float[Tensor, "instances dim"],
    label: Int[Tensor, ""],
    *,
    groups: Sequence[Int[Tensor, "_"]],
    distillation: Literal["AFS", "MaxS", "MaxMinS"] = "AFS",
    distilled: int = 1,
) -> BagOutput:
    """Attention within pseudo-bags, then attention over what is distilled from each.

        h_i = ReLU(W bag_i)
        tier 1, for each group g: a_g = softmax over i in g of the gated scores;  z_g = sum over i of a_gi h_i
        `tier1`: mean over g of CE(C z_g + f, label)
        tier 2: logits = C' sum_j b_j x_j + f', where b = softmax over j of the gated scores of x_j

    x are the detached z_g (AFS), or the h_i of the `distilled` instances of each group whose softmax over the classes
    of C (a_gi h_i) is highest for the last class (MaxS), or highest and lowest (MaxMinS).

    Args:
        weights: of the head.
        bag: one.
        label: its class.
        groups: indices of the instances of each pseudo-bag.
        distillation: see above.
        distilled: highest instances taken from each pseudo-bag.
    """
    hidden = linear(weights, "dim_reduction.fc1", bag).relu()
    scores = gated_scores(weights, "attention", hidden)[0]
    vectors, sources, attention = [], [], torch.zeros(len(bag), dtype=bag.dtype)
    for group in groups:
        share = scores[group].softmax(dim=0)
        vectors.append(share @ hidden[group])
        activation = (share[:, None] * hidden[group]) @ weights["classifier.fc.weight"].T
        order = group[activation.softmax(dim=1)[:, -1].argsort(descending=True)]
        sources.append(
            torch.cat([order[:distilled], order[-distilled:]]) if distillation == "MaxMinS" else order[:distilled]
        )
    logits = linear(weights, "classifier.fc", torch.stack(vectors))
    losses = {"tier1": F.cross_entropy(logits, label.expand(len(logits)))}
    second = (torch.stack(vectors) if distillation == "AFS" else hidden[torch.cat(sources)]).detach()
    share = gated_scores(weights, "att_classifier.attention", second)[0].softmax(dim=0)
    if distillation == "AFS":
        for weight, group in zip(share, groups, strict=True):
            attention = attention.index_add(0, group, weight * scores[group].softmax(dim=0))
    else:
        attention = attention.index_add(0, torch.cat(sources), share)
    pooled = share @ second
    logits = linear(weights, "att_classifier.classifier.fc", pooled)
    return BagOutput(logits=logits, attention=attention[None], losses=losses, features=pooled)
