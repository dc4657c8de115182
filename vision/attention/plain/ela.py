"""Efficient local attention written out in NCHW.

Source: Xu and Wan 2024, arXiv:2403.01123, equations 4-8.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainEfficientLocalAttention"]


class PlainEfficientLocalAttention(nn.Module):
    """One gate a row and one a column; see `regard.vision.attention.ela.EfficientLocalAttention`.

    Args:
        dim: channels, a multiple of 16 (32 for version T) and of 8: nothing is adjusted here.
        version: the paper's T, S, B or L.
    """

    def __init__(self, dim: int, *, version: Literal["T", "S", "B", "L"] = "B") -> None:
        super().__init__()
        kernel = 5 if version in "TS" else 7
        groups = dim if version in "TB" else dim // 8
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.gn = nn.GroupNorm(32 if version == "T" else 16, dim)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Gate every position by its row and its column."""
        batch, dim, height, width = x.shape
        rows = x.mean(dim=3)  # batch dim height
        columns = x.mean(dim=2)  # batch dim width
        row_gate = self.sigmoid(self.gn(self.conv(rows))).view(batch, dim, height, 1)
        column_gate = self.sigmoid(self.gn(self.conv(columns))).view(batch, dim, 1, width)
        return x * row_gate * column_gate
