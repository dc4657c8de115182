"""Halo attention (HaloNet): blocks of pixels attend to themselves and to a halo around them.

Source: Vaswani et al. 2021, arXiv:2103.12731, section 2; timm 1.0.31 `timm.layers.halo_attn.HaloAttn` (the authors
published no code), whose numbers and parameter names are kept. Differs from it: any height and width is accepted, an
output projection may follow, and more tokens may be attended to.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import make_divisible
from torch import Tensor, nn

__all__ = ["HaloAttention", "RelativePosition", "explicit_attention", "fused_attention"]

#: Logits of a chunk: 2 MB of float32, so that they are added to, normalised and used while in the cache.
CACHE_NUMEL = 2**19

#: Added, times the scale, to masked logits: finite, since it is multiplied, and within float16.
FAR = -2e4


class RelativePosition(nn.Module):
    """Relative position embeddings: one vector for every vertical and horizontal offset, shared by all heads.

    Offsets are counted between the top left corners of window and block, so the first rows of the tables are unused;
    published weights have them.

    Args:
        block: side of a block of queries, at most `window`.
        window: side of the window of keys.
        dim_head: width of a query.
    """

    def __init__(self, block: int, window: int, dim_head: int) -> None:
        super().__init__()
        self.block = block
        self.window = window
        self.height_rel = nn.Parameter(torch.empty(2 * window - 1, dim_head))
        self.width_rel = nn.Parameter(torch.empty(2 * window - 1, dim_head))

    def forward(
        self, query: Float[Tensor, "blocks block block dim_head"]
    ) -> tuple[Float[Tensor, "blocks block block window"], Float[Tensor, "blocks block block window"]]:
        """The position terms of the rows and of the columns of the keys."""
        rows, columns = (self._by_query(table).to(query) for table in (self.height_rel, self.width_rel))
        return torch.einsum("nijd,ida->nija", query, rows), torch.einsum("nijd,jdc->nijc", query, columns)

    def _by_query(self, table: Float[Tensor, "offsets dim_head"]) -> Float[Tensor, "block dim_head window"]:
        """Rows a - i + window - 1 of the table, for i in the block and a in the window."""
        return table.unfold(0, self.window, 1)[self.window - self.block :].flip(0)


class HaloAttention(nn.Module):
    """Softmax attention of every block of pixels to a window: the block and `halo_size` pixels around it.

        logit_ij = q_i . k_j / sqrt(dim_head) + q_i . height_rel[row offset] + q_i . width_rel[column offset]

    Outside the map keys and values are zero, also if the map is not a multiple of the block, and as in timm they are
    not masked, so they receive some of the weight; `mask_outside` masks them.

    On a CPU a few windows are computed at a time, so that logits stay in the cache. Elsewhere all are computed by one
    call of fused attention: position terms are appended to the queries, and no logits are stored. Logits are float32.
    An export with dynamic height and width is valid for multiples of the block.

    Args:
        dim: channels in, at least 1.
        num_heads: heads, a divisor of `dim_out`.
        dim_out: channels out; `dim` by default.
        block_size: side of a block, at least 1.
        halo_size: width of the halo, at least 0.
        stride: 1, or 2 for a map of half the size (rounded up).
        dim_head: width of a query; by default `dim_out * qk_ratio`, rounded to a multiple of 8, over the heads.
        qk_ratio: see `dim_head`.
        qkv_bias: whether queries, keys and values have a bias.
        avg_down: whether a stride of 2 averages outputs instead of skipping queries. Odd blocks always average.
        scale_pos_embed: whether the position terms are divided by sqrt(dim_head) as the products are.
        mask_outside: whether positions outside the map are masked.
        proj: whether a linear layer mixes the heads. timm's layer has none; inside a bottleneck a 1x1
            convolution does that.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> HaloAttention(64, num_heads=4)(torch.rand(2, 13, 17, 64)).shape
        torch.Size([2, 13, 17, 64])
        >>> HaloAttention(64, stride=2, dim_out=128)(torch.rand(2, 13, 17, 64)).shape
        torch.Size([2, 7, 9, 128])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2103.12731"
    takes_context: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        dim_out: int | None = None,
        block_size: int = 8,
        halo_size: int = 3,
        stride: int = 1,
        dim_head: int | None = None,
        qk_ratio: float | int = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_pos_embed: bool = False,
        mask_outside: bool = False,
        proj: bool = True,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        if num_heads < 1 or dim_out % num_heads:
            raise ValueError(f"{dim_out} channels out do not divide by num_heads {num_heads}")
        if stride not in (1, 2):
            raise ValueError(f"stride is {stride}; halo attention accepts 1 or 2")
        if block_size < 1 or halo_size < 0:
            raise ValueError(f"block_size {block_size} must be at least 1 and halo_size {halo_size} at least 0")
        dim_head = dim_head or make_divisible(dim_out * qk_ratio, 8) // num_heads
        if dim_head < 1:
            raise ValueError(f"no channels are left for a query of {num_heads} heads; give dim_head or fewer heads")
        self.num_heads = num_heads
        self.dim_head = dim_head
        self.dim_value = dim_out // num_heads
        self.block_size = block_size
        self.halo_size = halo_size
        self.window = block_size + 2 * halo_size
        self.pooled = stride == 2 and (avg_down or block_size % 2 == 1)
        self.query_stride = 1 if self.pooled else stride
        self.scale = dim_head**-0.5
        self.scale_pos_embed = scale_pos_embed
        self.mask_outside = mask_outside
        self.q = nn.Conv2d(dim, num_heads * dim_head, 1, stride=self.query_stride, bias=qkv_bias)
        # of every head first its key and then its value: timm's order
        self.kv = nn.Conv2d(dim, num_heads * dim_head + dim_out, 1, bias=qkv_bias)
        self.pos_embed = RelativePosition(block_size // self.query_stride, self.window, dim_head)
        self.proj = nn.Linear(dim_out, dim_out) if proj else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal: by fan-in for weights, dim_head^-0.5 for positions; biases are zero."""
        for layer in (self.q, self.kv, self.proj):
            if not isinstance(layer, nn.Identity):
                nn.init.trunc_normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for table in self.pos_embed.parameters():
            nn.init.trunc_normal_(table, std=self.scale)

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height_out width_out dim_out"]:
        """Attend from every block to its window, and to all of `context` without a position term."""
        if not _in_chunks(x):
            return self._mix(x, context)
        rows, columns = (-(-size // self.block_size) for size in x.shape[1:3])
        images = max(1, CACHE_NUMEL // (rows * columns * self._logits_of_a_block))
        contexts = [None] * max(1, len(x)) if context is None else context.split(images)
        return torch.cat([self._mix(chunk, more) for chunk, more in zip(x.split(images), contexts, strict=False)])

    @property
    def _logits_of_a_block(self) -> int:
        return self.num_heads * self.pos_embed.block**2 * self.window**2

    def _mix(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Attention for a few images."""
        x, step = x.contiguous(), self.query_stride
        query = F.linear(x[:, ::step, ::step], self.q.weight.flatten(1), self.q.bias)
        weight, bias = self.kv.weight.flatten(1), self.kv.bias
        pairs = F.linear(x, weight, bias)
        more = None if context is None else F.linear(context, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            mixed = self._attend(query, pairs, more)
        if self.pooled:
            planes = mixed.permute(0, 3, 1, 2)
            mixed = F.avg_pool2d(planes, 2, ceil_mode=True, count_include_pad=False).permute(0, 2, 3, 1)
        return self.proj(mixed)

    def _attend(self, query: Tensor, pairs: Tensor, more: Tensor | None) -> Tensor:
        """Pad to whole blocks and a rim, attend, and cut; on a CPU a few rows of blocks at a time."""
        block, halo, small = self.block_size, self.halo_size, self.pos_embed.block
        (height, width), (height_out, width_out) = pairs.shape[1:3], query.shape[1:3]
        rows, columns = -(-height // block), -(-width // block)
        below, right = rows * block - height, columns * block - width
        query = F.pad(query, (0, 0, 0, columns * small - width_out, 0, rows * small - height_out))
        pairs = F.pad(pairs, (0, 0, halo, halo + right, halo, halo + below))
        inside = torch.ones(1, 1, device=query.device)
        high = F.pad(inside.expand(height, 1), (0, 0, halo, halo + below)).squeeze(1)
        wide = F.pad(inside.expand(1, width), (halo, halo + right)).squeeze(0)
        if not _in_chunks(query):
            mixed = self._windows(query, pairs, more, high, wide)
        else:
            step = max(1, CACHE_NUMEL // max(1, len(query) * columns * self._logits_of_a_block))
            chunks = []
            for row in range(0, rows, step):
                seen = slice(row * block, (row + step) * block + 2 * halo)
                chunk = query[:, row * small : (row + step) * small], pairs[:, seen], more, high[seen], wide
                chunks.append(self._windows(*chunk))
            mixed = torch.cat(chunks, dim=1)
        return mixed[:, :height_out, :width_out]

    def _windows(self, query: Tensor, pairs: Tensor, more: Tensor | None, high: Tensor, wide: Tensor) -> Tensor:
        """Attention of whole blocks to their windows; `high` and `wide` are 1 where the map has rows and columns."""
        block, window, heads, small = self.block_size, self.window, self.num_heads, self.pos_embed.block
        batch, rows, columns = query.shape[0], query.shape[1] // small, query.shape[2] // small
        query = query.reshape(batch, rows, small, columns, small, heads, self.dim_head).permute(0, 1, 3, 5, 2, 4, 6)
        query = query.flatten(0, 3)  # (batch rows columns heads) block block dim_head
        seen = Windows.apply(pairs, window, block, heads)  # (batch rows columns heads) window^2 pair
        if more is not None:
            again = more.reshape(batch, 1, 1, -1, heads, seen.shape[2]).transpose(3, 4)
            seen = torch.cat([seen, again.expand(-1, rows, columns, -1, -1, -1).flatten(0, 3)], dim=1)
        key, value = seen.split([self.dim_head, self.dim_value], dim=2)
        exact = query.to(torch.promote_types(query.dtype, torch.float32))
        by_row, by_column = self.pos_embed(exact * self.scale if self.scale_pos_embed else exact)
        if self.mask_outside:
            far = FAR * self.scale
            high = ((1 - high) * far).to(by_row).unfold(0, window, block).view(rows, 1, 1, 1, 1, window)
            wide = ((1 - wide) * far).to(by_row).unfold(0, window, block).view(columns, 1, 1, 1, window)
            shape = batch, rows, columns, heads
            by_row = (by_row.unflatten(0, shape) + high).flatten(0, 3)
            by_column = (by_column.unflatten(0, shape) + wide).flatten(0, 3)
        attend = explicit_attention if query.device.type == "cpu" else fused_attention
        mixed = attend(query.flatten(1, 2), key, value, by_row.flatten(1, 2), by_column.flatten(1, 2), self.scale)
        mixed = mixed.view(batch, rows, columns, heads, small, small, self.dim_value).permute(0, 1, 4, 2, 5, 3, 6)
        return mixed.reshape(batch, rows * small, columns * small, heads * self.dim_value)


def explicit_attention(
    query: Float[Tensor, "blocks queries dim_head"],
    key: Float[Tensor, "blocks keys dim_head"],
    value: Float[Tensor, "blocks keys dim_value"],
    by_row: Float[Tensor, "blocks queries window"],
    by_column: Float[Tensor, "blocks queries window"],
    scale: float,
) -> Float[Tensor, "blocks queries dim_value"]:
    """Attention with all logits formed, in the precision of the position terms.

    Keys after the first window x window have no position term.
    """
    exact = by_row.dtype
    logits = (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(2)  # blocks queries keys
    if key.shape[1] != logits.shape[2]:
        logits = F.pad(logits, (0, key.shape[1] - logits.shape[2]))
    logits = logits.baddbmm_(query.to(exact), key.to(exact).mT, alpha=scale)
    return (logits.softmax(dim=-1) @ value.to(exact)).to(query.dtype)


def fused_attention(
    query: Float[Tensor, "blocks queries dim_head"],
    key: Float[Tensor, "blocks keys dim_head"],
    value: Float[Tensor, "blocks keys dim_value"],
    by_row: Float[Tensor, "blocks queries window"],
    by_column: Float[Tensor, "blocks queries window"],
    scale: float,
) -> Float[Tensor, "blocks queries dim_value"]:
    """The same without stored logits: position terms are appended to queries, one-hot positions to keys.

    In half precision a term is split into its rounded value and the rounding error, so that the kernel, which
    accumulates in float32, has it almost exactly.
    """
    window = by_row.shape[2]
    terms = torch.cat([by_row, by_column], dim=2) / scale
    carried = [terms.to(query.dtype)]
    if terms.dtype != query.dtype:
        carried.append((terms - carried[0]).to(query.dtype))
    one = torch.eye(window, dtype=key.dtype, device=key.device)
    position = torch.cat([one.repeat_interleave(window, dim=0), one.repeat(window, 1)], dim=1)
    position = F.pad(position, (0, 0, 0, key.shape[1] - window**2)).repeat(1, len(carried)).expand(key.shape[0], -1, -1)
    query, key = torch.cat([query, *carried], dim=2), torch.cat([key, position], dim=2)
    query, key, value = (part.unsqueeze(1) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1)


class Windows(torch.autograd.Function):
    """Cut a map into overlapping windows; the backward pass adds whole slices, far faster than PyTorch's own unfold."""

    @staticmethod
    def forward(
        ctx: Any, pairs: Float[Tensor, "batch height width pairs"], window: int, block: int, heads: int
    ) -> Float[Tensor, "blocks keys pair"]:
        """Windows of side `window` at every `block` pixels, one for each head, as (image, row, column, head)."""
        ctx.geometry = pairs.shape, window, block, heads
        seen = pairs.unfold(1, window, block).unfold(2, window, block)
        seen = seen.unflatten(3, (heads, pairs.shape[3] // heads)).permute(0, 1, 2, 3, 5, 6, 4)
        return seen.flatten(4, 5).flatten(0, 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Add the gradients of overlapping windows."""
        (batch, height, width, _), window, block, heads = ctx.geometry
        rows, columns = (height - window) // block + 1, (width - window) // block + 1
        over = -(-window // block)
        whole = grad.new_zeros(batch, rows + over - 1, block, columns + over - 1, block, heads, grad.shape[2])
        parts = grad.view(batch, rows, columns, heads, window, window, grad.shape[2])
        parts = parts.permute(0, 1, 4, 2, 5, 3, 6)  # batch rows window columns window heads pair
        for i in range(over):
            for j in range(over):
                part = parts[:, :, i * block : (i + 1) * block, :, j * block : (j + 1) * block]
                whole[:, i : i + rows, : part.shape[2], j : j + columns, : part.shape[4]] += part
        return whole.flatten(5).flatten(3, 4).flatten(1, 2)[:, :height, :width], None, None, None


def _in_chunks(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
