"""Softmax attention written out: the weights of all pairs are formed.

Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainSoftmaxAttention"]


class PlainSoftmaxAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V; arguments as for `regard.vision.attention.softmax`."""

    def __init__(self, dim: int, *, num_heads: int = 8, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend from every position to every position."""
        tokens = x.flatten(2).transpose(1, 2)  # batch tokens dim
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # batch heads tokens tokens
        mixed = logits.softmax(dim=-1) @ value  # batch heads tokens head_dim
        return self.proj(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)
