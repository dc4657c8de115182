"""Sparse attention over a grid (Sparsifiner).

Source: Wei et al. 2023, arXiv:2303.13755, section 3; lim142857/Sparsifiner@9a11e26, src/models/sparsifiner.py,
whose parameter names are kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .mask_predictor import Connections, MaskPredictor, resize_table

__all__ = ["SparsifinerAttention"]


class SparsifinerAttention(nn.Module):
    """Softmax attention over the keys that a low-rank predictor selects; see `MaskPredictor`.

    The predictor's tables are for an image of `grid` positions, with one more row that all context tokens share. For
    other sizes they are resized (bicubic); the authors' code has a fixed size. The budget includes the context, whose
    tokens compete like any other key.

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        qkv_bias: whether queries, keys and values have a bias.
        grid: height and width of the images that the tables are made for; a number is a square.
        keep_rate: share of its keys that a query keeps, 0-1; None keeps what is above a threshold.
        predictor: the other arguments of `MaskPredictor`.

    Raises:
        ValueError: `dim` does not divide by `num_heads`, or the predictor has no such argument.

    Example:
        >>> SparsifinerAttention(64, num_heads=4)(torch.rand(2, 7, 5, 64)).shape
        torch.Size([2, 7, 5, 64])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2303.13755"
    takes_context: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        qkv_bias: bool = True,
        grid: int | Sequence[int] = 14,
        keep_rate: float | int | None = 0.25,
        predictor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        self.num_heads = num_heads
        self.grid = (grid, grid) if isinstance(grid, int) else (grid[0], grid[1])
        if min(self.grid) < 1:
            raise ValueError(f"grid is {grid}; give a height and width of at least 1, e.g. 14")
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        tokens = 1 + self.grid[0] * self.grid[1]
        known = [key for key in inspect.signature(MaskPredictor).parameters if key not in ("tokens", "head_dim")]
        for key in predictor or {}:
            if key not in known:
                raise ValueError(f"the predictor has no option {key!r}; its options: {', '.join(known)}")
        options = {"keep_rate": keep_rate} | (predictor or {})
        self.mask_predictor = MaskPredictor(tokens, dim // num_heads, **options)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal with std 0.02, as in a ViT; biases are zero."""
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        self.mask_predictor.init_weights()

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Attend from every position to some of the grid and of `context`."""
        query, key, value, tables = self._prepare(x, context)
        mixed = self.mask_predictor(query, key, value, tables=tables)
        return self.proj(mixed.transpose(1, 2).reshape_as(x))

    def connections(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Connections:
        """The connections that `forward` keeps; the keys are the context's tokens and then the grid's."""
        query, key, _, tables = self._prepare(x, context)
        return self.mask_predictor.connections(query, key, tables=tables)

    def _prepare(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        tokens, prefix = x.flatten(1, 2), 0
        if context is not None:
            tokens, prefix = torch.cat([context, tokens], dim=1), context.shape[1]
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        predictor = self.mask_predictor
        reads, basis = (
            torch.cat([table[:1].expand(prefix, -1), resize_table(table[1:], self.grid, (x.shape[1], x.shape[2]))])
            for table in (predictor.proj_n, predictor.proj_back_n)
        )
        return query[:, :, prefix:], key, value, (reads, basis)
