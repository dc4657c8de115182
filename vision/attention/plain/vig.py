"""ViG's gated linear attention written out: one recurrence a way, token by token.

Source: Liao et al. 2024, arXiv:2405.18425, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainVigAttention", "recurrence"]


def recurrence(
    query: Float[Tensor, "batch heads tokens key_dim"],
    key: Float[Tensor, "batch heads tokens key_dim"],
    value: Float[Tensor, "batch heads tokens value_dim"],
    decay: Float[Tensor, "batch heads tokens key_dim"],
) -> Float[Tensor, "batch heads tokens value_dim"]:
    """S_i = diag(exp(decay_i)) S_(i-1) + key_i value_i^T, read as query_i^T S_i / sqrt(key_dim)."""
    memory = query.new_zeros(*query.shape[:2], query.shape[3], value.shape[3])
    read = []
    for i in range(query.shape[2]):
        memory = decay[:, :, i].exp().unsqueeze(-1) * memory + key[:, :, i].unsqueeze(-1) * value[:, :, i].unsqueeze(-2)
        read.append((query[:, :, i].unsqueeze(-1) * memory).sum(dim=-2))
    return torch.stack(read, dim=2) * query.shape[3] ** -0.5


class PlainVigAttention(nn.Module):
    """Convolution, recurrence forward and back, gate; arguments as for `regard.vision.attention.vig`."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 1,
        expand_key: float | int = 0.5,
        conv_act: bool = False,
        conv_bias: bool = False,
        out_act: bool = False,
        gate_normalizer: float | int = 16,
        divisor: float | int = 2,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key_dim = int(dim * expand_key)
        self.conv_act = conv_act
        self.out_act = out_act
        self.gate_normalizer = gate_normalizer
        self.divisor = divisor
        self.in_proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=conv_bias))
        self.qkv_proj = nn.Linear(dim, 2 * self.key_dim + dim, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(dim, 16, bias=False), nn.Linear(16, 2 * self.key_dim))
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.g_norm = nn.RMSNorm(dim // num_heads, eps=1e-6)
        self.l_norm = nn.RMSNorm(dim // num_heads, eps=1e-6)
        self.g_proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix the tokens, taken row by row, both ways."""
        near = self.in_proj(x)
        if self.conv_act:
            near = F.silu(near)
        tokens = near.flatten(2).transpose(1, 2)  # batch tokens dim
        decay = F.logsigmoid(self.gk_proj(tokens)) / self.gate_normalizer
        parts = self.qkv_proj(tokens).split([self.key_dim, self.key_dim, x.shape[1]], dim=-1)
        query, key, value, forward, backward = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (*parts, *decay.chunk(2, dim=-1))
        )
        there = recurrence(query, key, value, forward)
        back = recurrence(query.flip(2), key.flip(2), value.flip(2), backward.flip(2)).flip(2)
        far = self.g_norm((there + back).transpose(1, 2) / self.divisor)  # batch tokens heads head_dim
        local = self.l_norm(tokens.unflatten(-1, (self.num_heads, -1)))
        gate = self.g_proj(tokens).sigmoid().unflatten(-1, (self.num_heads, -1))
        mixed = (gate * far + (1 - gate) * local).flatten(2)
        if self.out_act:
            mixed = F.silu(mixed)
        return self.o_proj(mixed).transpose(1, 2).reshape(x.shape)
