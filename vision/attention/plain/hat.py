"""HAT's hybrid attention written out in NCHW.

Source: Chen et al. 2023, arXiv:2205.04437, section 3.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["PlainChannelAttention", "PlainHybridAttention", "PlainWindowAttention"]


class PlainHybridAttention(nn.Module):
    """Windows and channels; arguments as for `regard.vision.attention.hat.HybridAttention`."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 6,
        window_size: int = 16,
        shift: int = 0,
        conv_scale: float | int = 0.01,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.window_size, self.shift, self.conv_scale = window_size, shift, conv_scale
        self.attn = PlainWindowAttention(dim, num_heads=num_heads, window_size=window_size, qkv_bias=qkv_bias)
        hidden = max(1, dim // compress_ratio)
        gate = PlainChannelAttention(dim, squeeze_factor=squeeze_factor)
        convolutions = nn.Conv2d(dim, hidden, 3, padding=1), nn.GELU(), nn.Conv2d(hidden, dim, 3, padding=1)
        self.conv_block = nn.ModuleDict({"cab": nn.Sequential(*convolutions, gate)})

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend, and weigh the channels."""
        shift = self.shift if min(x.shape[2:]) > self.window_size else 0
        return self.attn(x, shift) + self.conv_block["cab"](x) * self.conv_scale


class PlainChannelAttention(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, dim: int, *, squeeze_factor: int) -> None:
        super().__init__()
        hidden = max(1, dim // squeeze_factor)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Weigh the channels."""
        return x * self.attention(x)


class PlainWindowAttention(nn.Module):
    """Roll, cut into windows, mask, attend, put together and roll back."""

    def __init__(self, dim: int, *, num_heads: int, window_size: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch dim height width"], shift: int = 0
    ) -> Float[Tensor, "batch dim height width"]:
        """Attend in windows; padding is masked like pairs that are adjacent only by rolling."""
        side, (height, width) = self.window_size, x.shape[2:]
        padded = F.pad(x, (0, -width % side, 0, -height % side)).roll((-shift, -shift), dims=(2, 3))
        windows = self._cut(padded)  # batch windows tokens dim
        query, key, value = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        logits = query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)  # batch windows heads tokens tokens
        bias = self.relative_position_bias_table[self._index().to(x.device)]  # tokens tokens heads
        logits = logits + bias.permute(2, 0, 1)
        labels = self._cut(self._labels(height, width, shift).to(x)[None, None]).squeeze(-1)  # 1 windows tokens
        mask = torch.where(labels.unsqueeze(-1) == labels.unsqueeze(-2), 0.0, -100.0).to(x)
        weights = (logits + mask.unsqueeze(2)).softmax(dim=-1)
        tokens = self.proj((weights @ value).transpose(2, 3).flatten(3))  # batch windows tokens dim
        rows, columns = padded.shape[2] // side, padded.shape[3] // side
        whole = tokens.reshape(len(x), rows, columns, side, side, -1).permute(0, 5, 1, 3, 2, 4).reshape(padded.shape)
        return whole.roll((shift, shift), dims=(2, 3))[:, :, :height, :width]

    def _cut(self, planes: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch windows tokens dim"]:
        side, (height, width) = self.window_size, planes.shape[2:]
        parts = planes.reshape(*planes.shape[:2], height // side, side, width // side, side)
        return parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)

    def _index(self) -> Int[Tensor, "tokens tokens"]:
        side = self.window_size
        down = torch.arange(side).repeat_interleave(side)
        right = torch.arange(side).repeat(side)
        down, right = (index.unsqueeze(1) - index + side - 1 for index in (down, right))
        return down * (2 * side - 1) + right

    def _labels(self, height: int, width: int, shift: int) -> Float[Tensor, "padded_height padded_width"]:
        """A number for every part of the map that may attend to itself, in the rolled map."""
        side = self.window_size
        lines = []
        for length in (height, width):
            whole = length + -length % side
            index = (torch.arange(whole) + shift) % whole  # of what was rolled here
            lines.append(1 + (index < shift) + 2 * (index >= length))
        return (4 * lines[0].unsqueeze(1) + lines[1]).float()
