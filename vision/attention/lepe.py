"""Softmax attention with locally enhanced positional encoding (LePE), a depthwise convolution.

Source: Dong et al. 2022, arXiv:2107.00652, section 3.2 (LePE), as in the last stage of BiFormer
(rayleizhu/BiFormer@1697bbb, models/_common.py `AttentionLePE` and `nchwAttentionLePE`); their parameter names.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["LePEAttention"]


class LePEAttention(nn.Module):
    """Global softmax attention plus a depthwise convolution: proj(softmax(q k^T / sqrt(head_dim)) v + lepe(.)).

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        qkv_bias: whether queries, keys and values have a bias.
        side_dwconv: side of the convolution, odd; 0 for none.
        lepe_of: what is convolved: the "value", as in the paper and the authors' `nchwAttentionLePE`, or the
            "input", as in their `AttentionLePE`, which BiFormer-T, S and B use.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> LePEAttention(64)(torch.rand(2, 7, 5, 64)).shape
        torch.Size([2, 7, 5, 64])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2107.00652"

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        qkv_bias: bool = False,
        side_dwconv: int = 5,
        lepe_of: Literal["input", "value"] = "value",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        if side_dwconv and side_dwconv % 2 == 0:
            raise ValueError(f"side_dwconv {side_dwconv} is even; an odd side keeps the size, 0 leaves it out")
        if lepe_of not in ("input", "value"):
            raise ValueError(f"lepe_of is {lepe_of!r}; known: input, value")
        self.num_heads = num_heads
        self.lepe_of = lepe_of
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim) if side_dwconv else None
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal with std 0.02 and zero biases; the convolution keeps PyTorch's default."""
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        if self.lepe is not None:
            self.lepe.reset_parameters()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Attend from every position to the whole grid."""
        qkv = self.qkv(x)  # batch height width 3*dim
        parts = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # batch heads tokens head_dim
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
        if self.lepe is not None:
            seen = x if self.lepe_of == "input" else qkv[..., -x.shape[-1] :]
            planes = seen.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            mixed = mixed + self.lepe(planes).permute(0, 2, 3, 1)
        return self.proj(mixed)
