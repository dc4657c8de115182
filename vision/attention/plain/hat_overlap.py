"""HAT's overlapping cross attention written out in NCHW.

Source: Chen et al. 2023, arXiv:2205.04437, section 3.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["PlainOverlappingCrossAttention"]


class PlainOverlappingCrossAttention(nn.Module):
    """Windows attend to larger windows; arguments as for `regard.vision.attention.hat_overlap`."""

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
        self.num_heads, self.window_size = num_heads, window_size
        self.overlap = window_size + int(window_size * overlap_ratio)
        self.relative_position_bias_table = nn.Parameter(torch.empty((window_size + self.overlap - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend from every window to the one around it; zeros outside the map take part."""
        side, overlap, (height, width) = self.window_size, self.overlap, x.shape[2:]
        planes = self.qkv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        planes = F.pad(planes, (0, -width % side, 0, -height % side))
        (padded_height, padded_width), dim = planes.shape[2:], x.shape[1]
        query = F.unfold(planes[:, :dim], side, stride=side)
        pairs = F.unfold(planes[:, dim:], overlap, stride=side, padding=(overlap - side) // 2)
        query = query.unflatten(1, (self.num_heads, -1, side**2)).permute(0, 4, 1, 3, 2)  # batch windows heads tokens d
        key, value = pairs.unflatten(1, (2, self.num_heads, -1, overlap**2)).permute(1, 0, 5, 2, 4, 3)
        logits = query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)  # batch windows heads tokens keys
        bias = self.relative_position_bias_table[self._index().to(x.device)]  # tokens keys heads
        weights = (logits + bias.permute(2, 0, 1)).softmax(dim=-1)
        tokens = self.proj((weights @ value).transpose(2, 3).flatten(3))  # batch windows tokens dim
        whole = tokens.reshape(len(x), padded_height // side, padded_width // side, side, side, dim)
        whole = whole.permute(0, 5, 1, 3, 2, 4).reshape(len(x), dim, padded_height, padded_width)
        return whole[:, :, :height, :width]

    def _index(self) -> Int[Tensor, "tokens keys"]:
        """Where in the table a pair's bias is; a negative number counts from the end, as the authors' do."""
        side, overlap = self.window_size, self.overlap
        offset = torch.arange(overlap) - torch.arange(side).unsqueeze(1) + side - overlap + 1  # side overlap
        index = offset[:, None, :, None] * (side + overlap - 1) + offset[None, :, None, :]
        return index.reshape(side**2, overlap**2)
