"""Sparsifiner's attention written out in NCHW.

Source: Wei et al. 2023, arXiv:2303.13755, equations 3-8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..sparsifiner import resize_table

__all__ = ["PlainMaskPredictor", "PlainSparsifinerAttention"]


class PlainMaskPredictor(nn.Module):
    """Low-rank attention, its reconstruction, and the largest entries of that."""

    def __init__(self, tokens: int, head_dim: int, *, keep_rate: float | int | None, score_threshold: float) -> None:
        super().__init__()
        rank = max(1, tokens // 6)
        self.keep_rate, self.score_threshold = keep_rate, score_threshold
        self.proj_n = nn.Parameter(torch.empty(tokens, rank))
        self.proj_back_n = nn.Parameter(torch.empty(tokens, rank))
        self.proj_c_q = nn.Linear(head_dim, max(1, head_dim // 2))
        self.proj_c_k = nn.Linear(head_dim, max(1, head_dim // 2))

    def coefficients(
        self,
        query: Float[Tensor, "batch heads tokens head_dim"],
        key: Float[Tensor, "batch heads tokens head_dim"],
        table: Float[Tensor, "tokens rank"],
    ) -> Float[Tensor, "batch heads tokens rank"]:
        """Shares of the basis rows, all of them."""
        few = self.proj_c_k(key).transpose(-2, -1) @ table  # batch heads width rank
        return (self.proj_c_q(query) @ few / math.sqrt(query.shape[1])).softmax(dim=-1)

    def mask(
        self, coefficients: Float[Tensor, "batch heads tokens rank"], table: Float[Tensor, "tokens rank"]
    ) -> Bool[Tensor, "batch heads tokens tokens"]:
        """The kept connections."""
        smallest = coefficients.topk(min(8, table.shape[1])).values[..., -1:]
        coefficients = torch.where(coefficients >= smallest, coefficients, 0.0)
        basis = table.abs()
        scores = coefficients @ torch.where(basis > 0.02, basis, 0.0).transpose(0, 1)
        if self.keep_rate is None:
            return scores > self.score_threshold
        kept = scores.topk(math.ceil(self.keep_rate * len(table))).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, kept, True)


class PlainSparsifinerAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over the kept connections; see `regard.vision.attention.sparsifiner`."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        qkv_bias: bool = True,
        grid: int | Sequence[int] = 14,
        keep_rate: float | int | None = 0.25,
        score_threshold: float = 1e-4,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.grid = (grid, grid) if isinstance(grid, int) else (grid[0], grid[1])
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.mask_predictor = PlainMaskPredictor(
            1 + self.grid[0] * self.grid[1], dim // num_heads, keep_rate=keep_rate, score_threshold=score_threshold
        )

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend over the kept connections."""
        query, key, value, reads, basis = self._prepare(x)
        mask = self.mask_predictor.mask(self.mask_predictor.coefficients(query, key, reads), basis)
        logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # batch heads tokens tokens
        weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        mixed = weights.nan_to_num() @ value  # an empty row attends to nothing
        return self.proj(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)

    def reconstruction_error(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, ""]:
        """What the predictor learns from: the square of softmax attention less its guess, summed."""
        query, key, _, reads, basis = self._prepare(x)
        query, key = query.detach(), key.detach()
        attention = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        guess = self.mask_predictor.coefficients(query, key, reads) @ basis.transpose(0, 1)
        return (guess - attention).square().sum()

    def _prepare(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        tokens = x.flatten(2).transpose(1, 2)  # batch tokens dim
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        size, predictor = (x.shape[2], x.shape[3]), self.mask_predictor
        reads, basis = (resize_table(t[1:], self.grid, size) for t in (predictor.proj_n, predictor.proj_back_n))
        return query, key, value, reads, basis
