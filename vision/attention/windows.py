"""Attention of rectangles of a map to the rectangles around them, with a learned bias for every offset.

What HAT's two attentions share. An axis is cut into runs of equal intervals; a run of rows with a run of columns is
a set of equal rectangles, and each set is attended to at once. Rectangles at the border may be smaller than the
others, so that a map of any size needs neither padding nor a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["Part", "Run", "attend", "attend_by_rectangles", "bias_by_offset", "runs_eagerly_on_cpu"]

#: Logits of a piece, for gradients on a CPU: 2 MB of float32, so that they stay in the cache.
PIECE = 2**19


class Run(NamedTuple):
    """Intervals of an axis.

    Attributes:
        start: where the first begins.
        count: how many there are.
        side: how long each is.
        step: from one to the next.
    """

    start: int
    count: int
    side: int
    step: int


class Part(NamedTuple):
    """Part of an axis: intervals of queries, and for each of them the interval of its keys.

    Attributes:
        query: the intervals of queries.
        key: as many intervals of keys.
        ahead: keys of each that come before its first query.
        before: keys of each that lie outside the map before it, and are not in `key`.
        after: the same behind it.
    """

    query: Run
    key: Run
    ahead: int = 0
    before: int = 0
    after: int = 0


def attend_by_rectangles(
    query: Float[Tensor, "batch height width dim"],
    pairs: Float[Tensor, "batch key_height key_width pairs"],
    rows: Sequence[Part],
    columns: Sequence[Part],
    offsets: Float[Tensor, "heads side side"],
    context: Float[Tensor, "batch context pairs"] | None = None,
) -> Float[Tensor, "batch height width dim"]:
    """Softmax attention of every rectangle of queries to its rectangle of keys.

    Keys that a `Part` says are outside are zero, and so are their values, but their biases count: together they are
    one more key, whose logit is the logsumexp of their biases.

    Args:
        query: queries of all heads.
        pairs: keys of all heads, then values of all heads.
        rows: parts of the vertical axis; their queries follow one another and fill it.
        columns: the same of the horizontal axis.
        offsets: bias of every offset from a query to a key, the offset zero in the middle.
        context: keys and values that all queries attend to without a bias.
    """
    batch, heads = query.shape[0], offsets.shape[0]
    kinds = list(itertools.product(rows, columns))
    queries = Rectangles.apply(query, [(row.query, column.query) for row, column in kinds])
    keys = Rectangles.apply(pairs, [(row.key, column.key) for row, column in kinds])
    mixed = []
    for (row, column), asked, seen in zip(kinds, queries, keys, strict=True):
        bias = bias_by_offset(offsets, row, column)  # heads queries keys
        more = []
        if any((row.before, row.after, column.before, column.after)):
            more.append(seen.new_zeros(len(seen), 1, seen.shape[2]))
            bias = torch.cat([bias, outside_logit(offsets, row, column)], dim=2)
        if context is not None:
            more.append(context.repeat_interleave(row.query.count * column.query.count, dim=0))
            bias = F.pad(bias, (0, context.shape[1]))
        if more:
            seen = torch.cat([seen, *more], dim=1)
        key, value = seen.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        found = attend(asked.unflatten(-1, (heads, -1)).transpose(1, 2), key, value, bias)
        shape = batch, row.query.count, column.query.count, row.query.side, column.query.side, query.shape[3]
        mixed.append(found.transpose(1, 2).reshape(shape).transpose(2, 3).flatten(3, 4).flatten(1, 2))
    lines = [torch.cat(mixed[i : i + len(columns)], dim=2) for i in range(0, len(mixed), len(columns))]
    return torch.cat(lines, dim=1)


def attend(
    query: Float[Tensor, "windows heads queries head_dim"],
    key: Float[Tensor, "windows heads keys head_dim"],
    value: Float[Tensor, "windows heads keys head_dim"],
    bias: Float[Tensor, "heads queries keys"],
) -> Float[Tensor, "windows heads queries head_dim"]:
    """Softmax attention with a bias that all windows share.

    It is one call of fused attention. Only for gradients on a CPU, where PyTorch's has none for the bias, windows
    are taken a few at a time with their logits in the cache, in float32, and again in the backward pass.
    """
    if not (runs_eagerly_on_cpu(query) and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype).unsqueeze(0))
    step = max(1, PIECE // max(1, bias.numel()))
    pieces = zip(*(part.split(step) for part in (query, key, value)), strict=True)
    found = [checkpoint(_explicit, *piece, bias, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    return torch.cat(found)


def _explicit(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """The same with all logits formed."""
    with torch.autocast(query.device.type, enabled=False):
        exact = torch.promote_types(query.dtype, torch.float32)
        logits = bias.to(exact).expand(len(query), -1, -1, -1).flatten(0, 1)
        rows, columns, values = (part.to(exact).flatten(0, 1) for part in (query, key, value))
        logits = torch.baddbmm(logits, rows, columns.mT, alpha=query.shape[-1] ** -0.5)
        return torch.bmm(logits.softmax(dim=-1), values).view(query.shape).to(query.dtype)


def bias_by_offset(
    offsets: Float[Tensor, "heads side side"], row: Part, column: Part
) -> Float[Tensor, "heads queries keys"]:
    """The bias of every key in a rectangle for every query in it."""
    down, right = (_offsets(part, offsets) for part in (row, column))
    wide = offsets.index_select(2, right.flatten()).index_select(1, down.flatten())
    wide = wide.unflatten(2, right.shape).unflatten(1, down.shape)  # heads height key_height width key_width
    return wide.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def outside_logit(offsets: Float[Tensor, "heads side side"], row: Part, column: Part) -> Float[Tensor, "heads queries 1"]:
    """Logsumexp of the biases of all keys that lie outside the map, for every query of a rectangle.

    They are the rows outside with all columns, and the rows inside with the columns outside.
    """
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    highest = offsets.amax(dim=(1, 2), keepdim=True).detach()
    shares = (offsets - highest).exp()
    (rows_in, rows_out), (columns_in, columns_out) = (_reach(part, shares) for part in (row, column))
    outside = rows_out @ shares @ (columns_in + columns_out).mT + rows_in @ shares @ columns_out.mT
    return (outside.clamp_min(torch.finfo(outside.dtype).tiny).log() + highest).flatten(1).unsqueeze(2)


def _offsets(part: Part, offsets: Tensor) -> Tensor:
    """For every query and key of an interval, where in `offsets` theirs is."""
    first = offsets.shape[1] // 2 - part.ahead
    keys = torch.arange(part.key.side, device=offsets.device)
    return keys + first - torch.arange(part.query.side, device=offsets.device).unsqueeze(1)


def _reach(part: Part, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot: (query, offset) of the keys inside the map, and of those outside."""
    middle, queries = offsets.shape[1] // 2, torch.arange(part.query.side, device=offsets.device).unsqueeze(1)
    key = torch.arange(offsets.shape[1], device=offsets.device) - middle + queries + part.ahead  # from the first key
    inside = (key >= 0) & (key < part.key.side)
    seen = (key >= -part.before) & (key < part.key.side + part.after)
    return inside.to(offsets), (seen & ~inside).to(offsets)


class Rectangles(torch.autograd.Function):
    """Cut rectangles from a map; going back adds whole slices, far faster than PyTorch's own slices and unfold."""

    @staticmethod
    def forward(
        ctx: Any, planes: Float[Tensor, "batch height width dim"], kinds: list[tuple[Run, Run]]
    ) -> tuple[Float[Tensor, "rectangles tokens dim"], ...]:
        """For every kind its rectangles, as (image, row, column), and in each its tokens row by row."""
        ctx.shape, ctx.kinds = planes.shape, kinds
        found = []
        for row, column in kinds:
            squares = planes[:, row.start :, column.start :].unfold(1, row.side, row.step)[:, : row.count]
            squares = squares.unfold(2, column.side, column.step)[:, :, : column.count]
            found.append(squares.permute(0, 1, 2, 4, 5, 3).flatten(3, 4).flatten(0, 2))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Add the gradients of the rectangles where they lie over one another."""
        batch, height, width, dim = ctx.shape
        whole = grads[0].new_zeros(ctx.shape)
        for (row, column), grad in zip(ctx.kinds, grads, strict=True):
            parts = grad.view(batch, row.count, column.count, row.side, column.side, dim).transpose(2, 3)
            for i, j in itertools.product(range(0, row.side, row.step), range(0, column.side, column.step)):
                part = parts[:, :, i : i + row.step, :, j : j + column.step]
                top, left = row.start + i, column.start + j
                place = whole[:, top:, left:].unfold(1, part.shape[2], row.step)[:, : row.count]
                place = place.unfold(2, part.shape[4], column.step)[:, :, : column.count]
                place += part.permute(0, 1, 3, 5, 2, 4)
        return whole, None


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether many small steps cost little, as they do without a compiler and away from accelerators."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
