"""Overlapping cross-attention (HAT): windows attend to larger windows around them.

Source: Chen et al. 2023, arXiv:2205.04437, section 3.2; XPixelGroup/HAT@1638a9a the first half of `OCAB`, whose
parameter names are kept. Differs from it: any height and width is accepted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .windows import Part, Run, attend_by_rectangles, runs_eagerly_on_cpu, strips

__all__ = ["OverlappingCrossAttention", "clip"]


class OverlappingCrossAttention(nn.Module):
    """Softmax attention of every window to a window around it that is larger by `overlap_ratio`.

        softmax(q k^T / sqrt(head_dim) + bias of the offset) v, queries of a window, keys of the larger window

    Outside the map keys and values are zero, also if the map is not a multiple of the window. As in the reference they
    are not masked, so they receive some of the weight by their biases.

    The map is padded, and all windows are computed by one call of fused attention. On a CPU windows at the border are
    computed separately if that is less work; everything outside the map is then one more key. An export with dynamic
    height and width is valid for multiples of the window.

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        window_size: side of a window of queries, at least 1.
        overlap_ratio: how much longer the side of a window of keys is, over `window_size`; at least 0. The two sides
            must differ by an even number.
        qkv_bias: whether queries, keys and values have a bias.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> OverlappingCrossAttention(48, num_heads=3, window_size=8)(torch.rand(2, 13, 17, 48)).shape
        torch.Size([2, 13, 17, 48])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2205.04437"
    takes_context: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 6,
        window_size: int = 16,
        overlap_ratio: float | int = 0.5,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        if window_size < 1 or overlap_ratio < 0:
            raise ValueError(f"window_size {window_size} must be at least 1, overlap_ratio {overlap_ratio} at least 0")
        more = int(window_size * overlap_ratio)
        if more % 2:
            near = " or ".join(f"{math.ceil(1e4 * (more + step) / window_size) / 1e4:g}" for step in (-1, 1))
            raise ValueError(
                f"overlap_ratio {overlap_ratio} makes the windows of keys {more} wider than window_size {window_size}, "
                "which is odd, so that queries are not in the middle. "
                f"Use a ratio of {near}"
            )
        self.num_heads = num_heads
        self.window_size = window_size
        self.rim = more // 2
        side = 2 * (window_size + self.rim) - 1
        self.relative_position_bias_table = nn.Parameter(torch.empty(side**2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal with std 0.02; biases are zero."""
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    @property
    def offsets(self) -> Float[Tensor, "heads side side"]:
        """The bias of every offset from a query to a key.

        The reference subtracts too much from its offsets, and negative indices take the table from its end: its
        rows are those of the offsets in order, rolled.
        """
        side = 2 * (self.window_size + self.rim) - 1
        ahead = (self.window_size + 2 * self.rim - 2) * (side + 1)
        table = self.relative_position_bias_table.roll(ahead, dims=0)
        return table.unflatten(0, (side, side)).permute(2, 0, 1)

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Attend from every window to the one around it, and to all of `context` without a bias."""
        more = None
        if context is not None:
            dim = x.shape[3]
            weight, bias = self.qkv.weight[dim:], None if self.qkv.bias is None else self.qkv.bias[dim:]
            more = F.linear(context, weight, bias)
        parts = strips(x, self.window_size)
        if len(parts) == 1:
            return self._attend(x, 0, 0, more)
        mixed = torch.empty_like(x, memory_format=torch.contiguous_format)
        for first, stop in parts:
            above, below = min(self.rim, first), min(self.rim, x.shape[1] - stop)
            mixed[:, first:stop] = self._attend(x[:, first - above : stop + below], above, below, more)
        return mixed

    def _attend(self, x: Tensor, above: int, below: int, context: Tensor | None) -> Tensor:
        """The same for a strip of the map whose first `above` and last `below` rows are keys only."""
        height, width, dim = x.shape[1] - above - below, *x.shape[2:]
        window, rim = self.window_size, self.rim
        query, pairs = self.qkv(x).split([dim, 2 * dim], dim=3)
        query = query[:, above : above + height]
        rows, columns = ([whole(length, window, rim)] for length in (height, width))
        if runs_eagerly_on_cpu(x):
            lower = rows if above or below else clip(height, window, rim)
            choices = itertools.product((rows, lower), (columns, clip(width, window, rim)))
            rows, columns = min(choices, key=lambda parts: work(len(x), *parts))
        high, wide = rows[0].ahead, columns[0].ahead
        last, right = (parts[-1].query.stop - length for parts, length in ((rows, height), (columns, width)))
        if any((last, right)):
            query = F.pad(query, (0, 0, 0, right, 0, last))
        top, bottom = (high - above, high - below) if high else (0, 0)
        frame = (0, 0, wide, wide + right, top, bottom + last)
        if any(frame):
            pairs = F.pad(pairs, frame)
        mixed = attend_by_rectangles(query, pairs, rows, columns, self.offsets, context)
        return self.proj(mixed[:, :height, :width])


def clip(length: int, window: int, rim: int) -> list[Part]:
    """Windows along an axis, the remainder at its end, and the keys within the map around each.

    Example:
        >>> [(part.query.number, part.query.side, part.key.side, part.before) for part in clip(30, 8, 2)]
        [(1, 8, 10, 2), (2, 8, 12, 0), (1, 6, 8, 0)]
    """
    each = []
    for start in range(0, length, window):
        stop = min(start + window, length)
        first, last = max(0, start - rim), min(length, start + window + rim)
        shape = stop - start, start - first, last - start, rim - (start - first), window + rim - (last - start)
        each.append((start, shape))
    parts = []
    for (side, ahead, reach, before, after), group in itertools.groupby(each, key=lambda pair: pair[1]):
        starts = [start for start, _ in group]
        query = Run(starts[0], len(starts), side, window)
        parts.append(Part(query, Run(starts[0] - ahead, len(starts), ahead + reach, window), ahead, before, after))
    return parts


def whole(length: int, window: int, rim: int) -> Part:
    """The same for an axis padded to whole windows, whose keys have a rim at both ends that counts as inside."""
    count = -(-length // window)
    return Part(Run(0, count, window, window), Run(0, count, window + 2 * rim, window), rim)


def work(batch: int, rows: Sequence[Part], columns: Sequence[Part]) -> int:
    """Number of logits and biases for each head."""
    return sum(
        (batch * row.query.number * column.query.number + 1)
        * (row.query.side * row.key.side * column.query.side * column.key.side)
        for row, column in itertools.product(rows, columns)
    )
