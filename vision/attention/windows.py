"""Attention from rectangles of a map to the rectangles around them, with a learned bias for every offset.

Shared by the two attentions of HAT. An axis is cut into runs of equal intervals; a run of rows with a run of columns is
a set of equal rectangles, and each set is computed at once. Rectangles at the border may be smaller than the
others, so that a map of any size needs neither padding nor a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "Part",
    "Run",
    "attend",
    "attend_by_rectangles",
    "bias_by_offset",
    "may_reuse_memory",
    "runs_eagerly_on_cpu",
    "strips",
]

#: Logits of a chunk, for gradients on a CPU: 2 MB of float32, so that they stay in the cache.
LOGITS = 2**19

#: Values in the queries of a chunk, without gradients on a CPU, for the same reason.
QUERIES = 2**17

#: Values of a map that are taken at a time without gradients, on a CPU and elsewhere: 8 and 64 MB of float32.
MAP, MAP_ON_ACCELERATOR = 2**21, 2**24


class Run(NamedTuple):
    """Intervals of an axis.

    Attributes:
        start: where the first begins.
        number: how many there are.
        side: how long each is.
        step: from one to the next.
    """

    start: int
    number: int
    side: int
    step: int

    @property
    def stop(self) -> int:
        """Where the last one ends."""
        return self.start + (self.number - 1) * self.step + self.side


class Part(NamedTuple):
    """Part of an axis: intervals of queries, and for each of them the interval of its keys.

    Attributes:
        query: the intervals of queries.
        key: the same number of intervals of keys.
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

    Keys that are outside of a `Part` are zero, and so are their values, but their biases count: together they are
    one more key, whose logit is the logsumexp of their biases.

    Args:
        query: queries of all heads.
        pairs: keys of all heads, then values of all heads.
        rows: parts of the vertical axis; their queries follow one another and fill it.
        columns: the same of the horizontal axis.
        offsets: bias of every offset from a query to a key, the offset zero in the middle.
        context: keys and values that all queries attend to without a bias.
    """
    kinds = list(itertools.product(rows, columns))
    if runs_eagerly_on_cpu(query) and not torch.is_grad_enabled():
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        for row, column in kinds:
            bias = _bias(offsets, row, column)
            for images, chunk in _chunks(query.shape, row):
                asked = cut_rectangles(query[images], chunk.query, column.query)
                seen = cut_rectangles(pairs[images], chunk.key, column.key)
                more = None if context is None else context[images]
                target = rectangles_of(mixed[images], chunk.query, column.query)
                target.copy_(_attend_one_kind(asked, seen, more, chunk, column, bias).view(target.shape))
        return mixed
    queries = Rectangles.apply(query, [(row.query, column.query) for row, column in kinds])
    keys = Rectangles.apply(pairs, [(row.key, column.key) for row, column in kinds])
    found = []
    for (row, column), asked, seen in zip(kinds, queries, keys, strict=True):
        tokens = _attend_one_kind(asked, seen, context, row, column, _bias(offsets, row, column))
        counts, sides = (row.query.number, column.query.number), (row.query.side, column.query.side)
        squares = tokens.reshape(query.shape[0], *counts, *sides, query.shape[3])
        found.append(squares.transpose(2, 3).flatten(3, 4).flatten(1, 2))
    lines = [torch.cat(found[i : i + len(columns)], dim=2) for i in range(0, len(found), len(columns))]
    return torch.cat(lines, dim=1)


def _chunks(shape: torch.Size, row: Part) -> Iterator[tuple[slice, Part]]:
    """A few images at a time, or a few rows of windows of one, so that what is cut from the map stays in the cache."""
    batch, _, width, dim = shape
    line = max(1, row.query.side * width * dim)
    images = max(1, QUERIES // max(1, line * row.query.number))
    number = min(row.query.number, max(1, QUERIES // line))
    for image, first in itertools.product(range(0, batch, images), range(0, row.query.number, number)):
        query, key = (
            run._replace(start=run.start + first * run.step, number=min(number, run.number - first))
            for run in (row.query, row.key)
        )
        yield slice(image, image + images), row._replace(query=query, key=key)


def _bias(offsets: Tensor, row: Part, column: Part) -> Tensor:
    """The biases of the keys in a rectangle, and one more for all that are outside the map."""
    bias = bias_by_offset(offsets, row, column)  # heads queries keys
    if _has_outside(row, column):
        bias = torch.cat([bias, outside_logit(offsets, row, column)], dim=2)
    return bias


def _has_outside(row: Part, column: Part) -> bool:
    return any((row.before, row.after, column.before, column.after))


def _attend_one_kind(
    query: Tensor, pairs: Tensor, context: Tensor | None, row: Part, column: Part, bias: Tensor
) -> Float[Tensor, "rectangles queries dim"]:
    """Attention of equal rectangles."""
    heads, more = bias.shape[0], []
    if _has_outside(row, column):
        more.append(pairs.new_zeros(len(pairs), 1, pairs.shape[2]))
    if context is not None:
        more.append(context.repeat_interleave(row.query.number * column.query.number, dim=0))
        bias = F.pad(bias, (0, context.shape[1]))
    if more:
        pairs = torch.cat([pairs, *more], dim=1)
    key, value = pairs.unflatten(-1, (2, heads, query.shape[2] // heads)).permute(2, 0, 3, 1, 4)
    query = query.unflatten(-1, (heads, query.shape[2] // heads)).transpose(1, 2)
    return attend(query, key, value, bias).transpose(1, 2).flatten(2)


def attend(
    query: Float[Tensor, "windows heads queries head_dim"],
    key: Float[Tensor, "windows heads keys head_dim"],
    value: Float[Tensor, "windows heads keys head_dim"],
    bias: Float[Tensor, "heads queries keys"],
) -> Float[Tensor, "windows heads queries head_dim"]:
    """Softmax attention with a bias that all windows share.

    It is one call of fused attention. Only for gradients on a CPU, where PyTorch's has none for the bias, windows
    are taken a few at a time with their logits in the cache, in float32; their weights are kept for the backward pass.
    """
    if not (runs_eagerly_on_cpu(query) and torch.is_grad_enabled()):
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype).unsqueeze(0))
        # what ONNX puts in its target lays memory out otherwise, and views of it would not fit
        return mixed.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else mixed
    step = max(1, LOGITS // max(1, bias.numel()))
    chunks = zip(query.split(step), key.split(step), value.split(step), strict=True)
    return torch.cat([_explicit(*chunk, bias) for chunk in chunks])


def _explicit(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """The same with all logits formed."""
    with torch.autocast(query.device.type, enabled=False):
        exact = torch.promote_types(query.dtype, torch.float32)
        logits = bias.to(exact).repeat(len(query), 1, 1)  # windows and heads in one
        rows, columns, values = (part.to(exact).flatten(0, 1) for part in (query, key, value))
        logits = logits.baddbmm_(rows, columns.mT, alpha=query.shape[-1] ** -0.5)
        return torch.bmm(logits.softmax(dim=-1), values).view(query.shape).to(query.dtype)


def bias_by_offset(
    offsets: Float[Tensor, "heads side side"], row: Part, column: Part
) -> Float[Tensor, "heads queries keys"]:
    """The bias of every key in a rectangle for every query in it."""
    down, right = (_offsets(part, offsets) for part in (row, column))
    wide = offsets.index_select(2, right.flatten()).index_select(1, down.flatten())
    wide = wide.unflatten(2, right.shape).unflatten(1, down.shape)  # heads height key_height width key_width
    return wide.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def outside_logit(
    offsets: Float[Tensor, "heads side side"], row: Part, column: Part
) -> Float[Tensor, "heads queries 1"]:
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
    """For every query and key of an interval, the index of their offset in `offsets`."""
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


def rectangles_of(
    planes: Float[Tensor, "batch height width dim"], row: Run, column: Run
) -> Float[Tensor, "batch rows columns side_down side_right dim"]:
    """A view of the rectangles that lie where intervals of rows meet intervals of columns."""
    squares = planes[:, row.start :, column.start :].unfold(1, row.side, row.step)[:, : row.number]
    return squares.unfold(2, column.side, column.step)[:, :, : column.number].permute(0, 1, 2, 4, 5, 3)


def cut_rectangles(
    planes: Float[Tensor, "batch height width dim"], row: Run, column: Run
) -> Float[Tensor, "rectangles tokens dim"]:
    """The same one after another, and in each its tokens row by row."""
    return rectangles_of(planes, row, column).flatten(3, 4).flatten(0, 2)


class Rectangles(torch.autograd.Function):
    """Cut rectangles from a map; the backward pass adds whole slices, faster than PyTorch's slices and unfold."""

    @staticmethod
    def forward(
        ctx: Any, planes: Float[Tensor, "batch height width dim"], kinds: list[tuple[Run, Run]]
    ) -> tuple[Float[Tensor, "rectangles tokens dim"], ...]:
        """For every kind its rectangles, by image, row and column."""
        ctx.shape, ctx.kinds = planes.shape, kinds
        return tuple(cut_rectangles(planes, row, column) for row, column in kinds)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Add the gradients of overlapping rectangles."""
        batch, dim = ctx.shape[0], ctx.shape[3]
        whole = grads[0].new_zeros(ctx.shape)
        for (row, column), grad in zip(ctx.kinds, grads, strict=True):
            parts = grad.view(batch, row.number, column.number, row.side, column.side, dim)
            for i, j in itertools.product(range(0, row.side, row.step), range(0, column.side, column.step)):
                part = parts[:, :, :, i : i + row.step, j : j + column.step]
                down = row._replace(start=row.start + i, side=part.shape[3])
                right = column._replace(start=column.start + j, side=part.shape[4])
                rectangles_of(whole, down, right).add_(part)
        return whole, None


def strips(x: Float[Tensor, "batch height width dim"], window: int, shift: int = 0) -> list[tuple[int, int]]:
    """First row and the row after the last of strips of a map that hold whole windows and can be taken one by one.

    That saves memory and costs nothing where no gradient is needed; otherwise all is one strip.

    Args:
        x: the map.
        window: side of a window.
        shift: rows before the first whole window.

    Example:
        >>> with torch.no_grad():
        ...     strips(torch.empty(1, 1500, 256, 180, device="meta"), 16, 8), strips(torch.rand(1, 9, 7, 4), 4)
        ([(0, 360), (360, 712), (712, 1064), (1064, 1416), (1416, 1500)], [(0, 9)])
    """
    batch, height, width, dim = x.shape
    if not may_reuse_memory():
        return [(0, height)]
    most = MAP if x.device.type == "cpu" else MAP_ON_ACCELERATOR
    lines = max(1, most // max(1, batch * width * dim * window)) * window
    edges = [0, *range(shift + lines, height, lines), height]
    return list(itertools.pairwise(edges))


def may_reuse_memory() -> bool:
    """Whether nothing is stored for a backward pass, so that memory may be reused; compilers do that themselves."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether many small operations are cheap: on a CPU and without a compiler."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
