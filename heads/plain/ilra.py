"""ILRA written out for one bag.

Source: Xiang and Zhang 2023, ICLR, equation 16; dazhangyu123/ACMIL@e53d19c architecture/ilra.py.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, layer_norm, linear

__all__ = ["ilra"]


def ilra(weights: Weights, bag: Float[Tensor, "instances dim"], *, heads: int = 8) -> BagOutput:
    """Blocks from the instances X to a few latents L and back, then pooling by learned seeds S.

        each block: L' = attend(L, X), X = attend(X, L');  pooled = attend(S, X);  logits = mean over S of C pooled + f

    `attend` projects its inputs with `fc_q`, `fc_k` and `fc_v`, applies multi-head attention (which projects again),
    adds the projected queries and a ReLU layer `fc_o`, and gates the result with SiLU of the queries.
    """
    instances, number = bag, 0
    while f"gab_blocks.{number}.latent" in weights:
        name = f"gab_blocks.{number}"
        latents, _ = _attend(weights, f"{name}.project_forward", weights[f"{name}.latent"][0], instances, heads)
        instances, _ = _attend(weights, f"{name}.project_backward", instances, latents, heads)
        number += 1
    pooled, attention = _attend(weights, "pooling.mha", weights["pooling.S"][0], instances, heads)
    logits = linear(weights, "classifier", pooled).mean(dim=0)
    return BagOutput(logits=logits, attention=attention.mean(dim=0), features=pooled.flatten())


def _attend(weights: Weights, name: str, queries: Tensor, keys: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """One attention, and its weights (heads, queries, keys)."""
    projected = linear(weights, f"{name}.fc_q", queries)
    parts = projected, linear(weights, f"{name}.fc_k", keys), linear(weights, f"{name}.fc_v", keys)
    inner = weights[f"{name}.multihead_attn.in_proj_weight"].chunk(3)
    biases = weights[f"{name}.multihead_attn.in_proj_bias"].chunk(3)
    query, key, value = (
        (part @ weight.T + bias).unflatten(1, (heads, -1)).transpose(0, 1)
        for part, weight, bias in zip(parts, inner, biases, strict=True)
    )  # heads tokens channels
    attention = (query @ key.mT / query.shape[2] ** 0.5).softmax(dim=2)
    found = linear(weights, f"{name}.multihead_attn.out_proj", (attention @ value).transpose(0, 1).flatten(1))
    found = projected + found
    norm = f"{name}.ln0.weight" in weights
    found = layer_norm(weights, f"{name}.ln0", found) if norm else found
    found = found + linear(weights, f"{name}.fc_o", found).relu()
    found = layer_norm(weights, f"{name}.ln1", found) if norm else found
    if f"{name}.gate.0.weight" in weights:
        gate = linear(weights, f"{name}.gate.0", queries)
        found = found * gate * gate.sigmoid()
    return found, attention
