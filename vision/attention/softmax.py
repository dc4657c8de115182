"""Multi-head softmax attention over a grid, the baseline of the other blocks.

Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1; parameter names as in timm's ViT.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["SoftmaxAttention"]


class SoftmaxAttention(nn.Module):
    """Global softmax attention: proj(softmax(q k^T / sqrt(head_dim)) v).

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: dropout of the attention weights in training, 0-1.

    Raises:
        ValueError: `dim` does not divide by `num_heads`.

    Example:
        >>> SoftmaxAttention(64, num_heads=4)(torch.rand(2, 7, 5, 64)).shape
        torch.Size([2, 7, 5, 64])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:1706.03762"
    takes_context: ClassVar[bool] = True

    def __init__(self, dim: int, *, num_heads: int = 8, qkv_bias: bool = True, drop_rate: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        self.num_heads = num_heads
        self.drop_rate = drop_rate
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal with std 0.02, as in a ViT; biases are zero."""
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Attend from every position to the whole grid and to `context`."""
        tokens = x.flatten(1, 2)
        grid = tokens.shape[1]
        if context is not None:
            tokens = torch.cat([tokens, context], dim=1)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        drop_rate = self.drop_rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query[:, :, :grid], key, value, dropout_p=drop_rate)
        return self.proj(mixed.transpose(1, 2).reshape_as(x))
