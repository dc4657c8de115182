"""Layers of the plain heads, given by their names among a head's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Weights", "gated_scores", "hide_drawn", "layer_norm", "linear", "query_attention", "read_values"]

#: Named parameters and buffers of a head.
Weights = Mapping[str, Tensor]


def linear(weights: Weights, name: str, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
    """The linear layer `name`: x W^T, plus b where the layer has a bias."""
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights: Weights, name: str, x: Float[Tensor, "... width"], eps: float = 1e-5) -> Tensor:
    """The layer norm `name`."""
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def gated_scores(
    weights: Weights, name: str, hidden: Float[Tensor, "instances width"]
) -> Float[Tensor, "maps instances"]:
    """Scores of gated attention: w . (tanh(V h_i + c) * sigmoid(U h_i + d)) + e; without U the gate is 1.

    Source: Ilse et al. 2018, arXiv:1802.04712, equations 8 and 9.
    """
    product = linear(weights, f"{name}.attention_V.0", hidden).tanh()
    if f"{name}.attention_U.0.weight" in weights:
        product = product * linear(weights, f"{name}.attention_U.0", hidden).sigmoid()
    return linear(weights, f"{name}.attention_weights", product).T


def query_attention(
    weights: Weights, name: str, query: Float[Tensor, "width"], instances: Float[Tensor, "instances width"], heads: int
) -> Float[Tensor, "heads instances"]:
    """Scores of multi-head attention from one query: (Q query)_k . (K h_i)_k / sqrt(width / heads) for head k."""
    asked = linear(weights, f"{name}.q_proj", query).unflatten(0, (heads, -1))  # heads channels
    keys = linear(weights, f"{name}.k_proj", instances).unflatten(1, (heads, -1))  # instances heads channels
    return torch.einsum("hc,nhc->hn", asked, keys) / asked.shape[1] ** 0.5


def read_values(
    weights: Weights,
    name: str,
    attention: Float[Tensor, "heads instances"],
    instances: Float[Tensor, "instances width"],
) -> Float[Tensor, "width"]:
    """LayerNorm(O concat_k(sum_i attention_ki (V h_i)_k)): values under given weights, projected and normed."""
    values = linear(weights, f"{name}.v_proj", instances).unflatten(1, (len(attention), -1))
    read = torch.einsum("hn,nhc->hc", attention, values).flatten()
    return layer_norm(weights, f"{name}.layer_norm", linear(weights, f"{name}.out_proj", read), eps=1e-6)


def hide_drawn(
    scores: Float[Tensor, "maps instances"], drawn: Float[Tensor, "maps top"], hide_rate: float
) -> Float[Tensor, "maps instances"]:
    """STKIM (arXiv:2311.07125, section 3.3): of each map's `top` highest scores a share becomes -1e9.

    Args:
        scores: before softmax.
        drawn: a random number for each of the highest; those with the smallest are hidden.
        hide_rate: the share, 0 to 1; int(top * hide_rate) are hidden.
    """
    top = drawn.shape[1]
    order: Int[Tensor, "maps hidden"] = drawn.argsort(dim=1)[:, : int(top * hide_rate)]
    hidden = scores.topk(top, dim=1).indices.gather(1, order)
    return scores.scatter(1, hidden, -1e9)
