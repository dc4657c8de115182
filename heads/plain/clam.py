"""CLAM written out for one bag, with one attention branch or one for each class.

Source: Lu et al. 2021, arXiv:2004.09666, section "Instance-level clustering"; mahmoodlab/CLAM@53e2409.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput, Criterion
from .layers import Weights, linear

__all__ = ["clam"]


def clam(
    weights: Weights,
    bag: Float[Tensor, "instances dim"],
    label: int,
    *,
    samples: int = 8,
    subtyping: bool = False,
    instance_loss: Criterion = F.cross_entropy,
    bag_weight: float = 0.7,
) -> BagOutput:
    """Attention pooling, and a two-way classifier I_c of instances for each class c.

        h_i = ReLU(W bag_i + b);  a_c = softmax over i of w_c . (tanh(V h_i + v) * sigmoid(U h_i + u)) + e_c
        logits_c = C_c sum_i a_ci h_i + f_c
        instance: `instance_loss` of I_label for the `samples` highest (target 1) and lowest (0) scores of its map;
        with `subtyping` also of I_c for the `samples` highest of every other class (target 0), over the classes

    The loss is `bag_weight` of the bag's and 1 - `bag_weight` of the instances'.
    """
    hidden = linear(weights, "attention_net.0", bag).relu()
    if "attention_net.3.module.0.weight" in weights:
        scores = linear(weights, "attention_net.3.module.3", linear(weights, "attention_net.3.module.0", hidden).tanh())
    else:
        product = linear(weights, "attention_net.3.attention_a.0", hidden).tanh()
        product = product * linear(weights, "attention_net.3.attention_b.0", hidden).sigmoid()
        scores = linear(weights, "attention_net.3.attention_c", product)
    attention = scores.T.softmax(dim=1)  # maps instances
    features = attention @ hidden
    single = "classifiers.weight" in weights
    classes = sum(name.startswith("instance_classifiers") and name.endswith("weight") for name in weights)
    logits = (
        linear(weights, "classifiers", features[0])
        if single
        else torch.cat([linear(weights, f"classifiers.{c}", features[c]) for c in range(classes)])
    )
    total = bag.new_zeros(())
    for c in range(classes):
        order = scores[:, 0 if single else c].argsort(descending=True)
        high, low = order[:samples], order[-samples:]
        if c == label:
            asked, targets = torch.cat([high, low]), torch.tensor([1] * len(high) + [0] * len(low))
        elif subtyping:
            asked, targets = high, torch.zeros(len(high), dtype=torch.long)
        else:
            continue
        total = total + instance_loss(linear(weights, f"instance_classifiers.{c}", hidden[asked]), targets)
    total = total / classes if subtyping else total
    losses = {"instance": (1 - bag_weight) * total}
    features = features[0] if single else features
    return BagOutput(logits=logits, attention=attention, losses=losses, features=features, bag_weight=bag_weight)
