"""Hybrid attention (HAT): window attention plus channel attention over convolutions.

Source: Chen et al. 2023, arXiv:2205.04437, section 3.2; XPixelGroup/HAT@1638a9a `WindowAttention`, `CAB` and the
first half of `HAB`, whose parameter names are kept. Differs from it: any height and width is accepted.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .windows import Part, Run, attend_by_rectangles, may_reuse_memory, strips

__all__ = ["ChannelAttention", "ChannelAttentionBlock", "HybridAttention", "WindowAttention", "cut"]


class HybridAttention(nn.Module):
    """Window attention plus scaled channel attention: attn(x) + conv_scale * conv_block(x).

    The norm before it and the residual connection are the host's. In every second block of a network the windows are
    shifted by half a window; `set_depth` gives a block its index. Maps that are at most one window high or wide are
    not shifted.

    The default window of 16 is that of the authors' networks for images. A 14 x 14 map fits into one such window:
    every patch attends to every patch. Windows of 7 suit the maps of a classifier of 224 pixels (56, 28, 14 and 7).

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        window_size: side of a window, at least 1.
        shift: rows and columns by which the windows are shifted, 0 to `window_size` - 1; None for half a window in
            every second block of a network.
        conv_scale: weight of the channel attention block.
        compress_ratio: `dim` over the width between its convolutions.
        squeeze_factor: `dim` over the width of its gate.
        qkv_bias: whether queries, keys and values have a bias.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> HybridAttention(48, num_heads=3, window_size=8)(torch.rand(2, 13, 17, 48)).shape
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
        shift: int | None = None,
        conv_scale: float | int = 0.01,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        if shift is not None and not 0 <= shift < window_size:
            raise ValueError(
                f"shift {shift} is not from 0 to window_size - 1 = {window_size - 1}; None is half a window"
            )
        self.num_heads = num_heads
        self.conv_scale = conv_scale
        self.alternates = shift is None
        self.shift = shift or 0
        self.attn = WindowAttention(dim, num_heads=num_heads, window_size=window_size, qkv_bias=qkv_bias)
        self.conv_block = ChannelAttentionBlock(dim, compress_ratio=compress_ratio, squeeze_factor=squeeze_factor)

    def set_depth(self, depth: int) -> None:
        """Set the index of the block in a network, from 0: unless `shift` was given, odd ones are shifted."""
        if self.alternates:
            self.shift = self.attn.window_size // 2 if depth % 2 else 0

    def init_weights(self) -> None:
        """Truncated normal with std 0.02 and biases of zero; convolutions keep PyTorch's default."""
        self.attn.init_weights()
        self.conv_block.init_weights()

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Attend from every position to its window, and to all of `context` without a bias."""
        shift = self.shift if min(x.shape[1], x.shape[2]) > self.attn.window_size else 0
        mixed, channels = self.attn(x, shift=shift, context=context), self.conv_block(x)
        return mixed.add_(channels, alpha=self.conv_scale) if may_reuse_memory() else mixed + self.conv_scale * channels


class WindowAttention(nn.Module):
    """Softmax attention in windows, with a learned bias for every offset from a query to a key.

        softmax(q k^T / sqrt(head_dim) + bias of the offset) v, within each window

    The authors roll the map by the shift, divide it into whole windows, and mask pairs that are adjacent only by
    rolling. Here the map is divided from the shift on, with smaller windows at the border. That is the same function
    where the authors' is defined (up to weights of e^-100 from their mask of -100) at lower cost, and a map that is not
    a multiple of the window needs no padding.

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        window_size: side of a window, at least 1.
        qkv_bias: whether queries, keys and values have a bias.

    Raises:
        ValueError: `dim` does not divide by `num_heads`, or `window_size` is not positive.

    Example:
        >>> WindowAttention(48, num_heads=3, window_size=8)(torch.rand(2, 16, 24, 48), shift=4).shape
        torch.Size([2, 16, 24, 48])
    """

    def __init__(self, dim: int, *, num_heads: int = 6, window_size: int = 16, qkv_bias: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        if window_size < 1:
            raise ValueError(f"window_size is {window_size}; it must be at least 1")
        self.num_heads = num_heads
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
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
        """The bias of every offset from a query to a key; the table counts from the key to the query."""
        side = 2 * self.window_size - 1
        return self.relative_position_bias_table.flip(0).unflatten(0, (side, side)).permute(2, 0, 1)

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        *,
        shift: int = 0,
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Attend in windows of side `window_size`, the first boundary `shift` rows and columns from the corner.

        `context` are further tokens that every position attends to, without a bias.
        """
        dim = x.shape[3]
        more = None
        if context is not None:
            weight, bias = self.qkv.weight[dim:], None if self.qkv.bias is None else self.qkv.bias[dim:]
            more = nn.functional.linear(context, weight, bias)
        parts = strips(x, self.window_size, shift)
        if len(parts) == 1:
            return self._attend(x, shift, shift, more)
        mixed = torch.empty_like(x, memory_format=torch.contiguous_format)
        for first, stop in parts:
            mixed[:, first:stop] = self._attend(x[:, first:stop], 0 if first else shift, shift, more)
        return mixed

    def _attend(self, x: Tensor, down: int, right: int, context: Tensor | None) -> Tensor:
        """The same in windows that are cut `down` rows and `right` columns from the corner."""
        query, pairs = self.qkv(x).split([x.shape[3], 2 * x.shape[3]], dim=3)
        rows, columns = (cut(x.shape[axis], self.window_size, shift) for axis, shift in ((1, down), (2, right)))
        return self.proj(attend_by_rectangles(query, pairs, rows, columns, self.offsets, context))


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation: x * sigmoid(W_2 ReLU(W_1 mean(x))).

    Args:
        dim: channels.
        squeeze_factor: `dim` over the width of the hidden layer, which has at least one channel.
    """

    def __init__(self, dim: int, *, squeeze_factor: int = 30) -> None:
        super().__init__()
        hidden = max(1, dim // squeeze_factor)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Weigh the channels."""
        return x * self.attention(x)


class ChannelAttentionBlock(nn.Module):
    """Two 3x3 convolutions through fewer channels, then channel attention ("CAB").

    Args:
        dim: channels.
        compress_ratio: `dim` over the channels between the convolutions, of which there is at least one.
        squeeze_factor: as in `ChannelAttention`.

    Example:
        >>> ChannelAttentionBlock(36, squeeze_factor=12)(torch.rand(2, 10, 13, 36)).shape
        torch.Size([2, 10, 13, 36])
    """

    def __init__(self, dim: int, *, compress_ratio: int = 3, squeeze_factor: int = 30) -> None:
        super().__init__()
        if compress_ratio < 1 or squeeze_factor < 1:
            raise ValueError(f"compress_ratio {compress_ratio} and squeeze_factor {squeeze_factor} must be at least 1")
        hidden = max(1, dim // compress_ratio)
        self.cab = nn.Sequential(
            nn.Conv2d(dim, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 3, padding=1),
            ChannelAttention(dim, squeeze_factor=squeeze_factor),
        )

    def init_weights(self) -> None:
        """PyTorch's default initialisation, as in the authors' code."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Convolve and weigh the channels."""
        planes = x.permute(0, 3, 1, 2)
        if may_reuse_memory():
            mixed = self.cab[:3](planes)
            return mixed.mul_(self.cab[3].attention(mixed)).permute(0, 2, 3, 1)  # type: ignore[operator]
        return self.cab(planes).permute(0, 2, 3, 1)


def cut(length: int, window: int, shift: int) -> list[Part]:
    """Cut an axis at `shift` and every `window` from there.

    Example:
        >>> [(run.start, run.number, run.side) for run, *_ in cut(16, 6, 2)]
        [(0, 1, 2), (2, 2, 6), (14, 1, 2)]
    """
    first = min(shift, length)
    # as (length - first) // window, but an export has both terms where `length` is a multiple
    whole = length // window - (1 if length % window < shift else 0)
    whole = max(0, whole)
    last = length - first - whole * window
    runs = [Run(0, 1, first, window), Run(first, whole, window, window), Run(length - last, 1, last, window)]
    return [Part(run, run) for run in runs if run.number and run.side]
