"""Halo attention written out in NCHW.

Source: Vaswani et al. 2021, arXiv:2103.12731, section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainHaloAttention"]


class _Tables(nn.Module):
    """Where the position tables are in published weights."""

    def __init__(self, offsets: int, dim_head: int) -> None:
        super().__init__()
        self.height_rel = nn.Parameter(torch.empty(offsets, dim_head))
        self.width_rel = nn.Parameter(torch.empty(offsets, dim_head))


class PlainHaloAttention(nn.Module):
    """Blocks attend to their windows; arguments as for `regard.vision.attention.halonet.HaloAttention`."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        block_size: int = 8,
        halo_size: int = 3,
        stride: int = 1,
        qkv_bias: bool = False,
        scale_pos_embed: bool = False,
        mask_outside: bool = False,
        proj: bool = True,
    ) -> None:
        super().__init__()
        self.heads = num_heads
        self.block, self.halo, self.stride = block_size, halo_size, stride
        self.scale_pos_embed, self.mask_outside = scale_pos_embed, mask_outside
        self.window = block_size + 2 * halo_size
        self.dim_head = dim // num_heads
        self.q = nn.Conv2d(dim, dim, 1, stride=stride if block_size % 2 == 0 else 1, bias=qkv_bias)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=qkv_bias)
        self.pos_embed = _Tables(2 * self.window - 1, self.dim_head)
        self.proj = nn.Linear(dim, dim) if proj else nn.Identity()

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height_out width_out"]:
        """Attend from every block to the pixels in and around it."""
        block, halo, window = self.block, self.halo, self.window
        height, width = x.shape[2:]
        below, right = -height % block, -width % block
        query = self.q(x)  # batch dim height_out width_out
        small = block // self.q.stride[0]
        height_out, width_out = query.shape[2:]
        query = self._cut(F.pad(query, (0, -width_out % small, 0, -height_out % small)), small, small)
        pairs = F.pad(self.kv(x), (halo, halo + right, halo, halo + below))
        pairs = self._cut(pairs, window, block)
        key, value = pairs.chunk(2, dim=-1)  # batch heads rows columns window window dim_head
        offset = torch.arange(window) - torch.arange(small)[:, None] + window - 1  # small window
        position = torch.einsum("bnrcijd,iad->bnrcija", query, self.pos_embed.height_rel[offset]).unsqueeze(-1)
        position = position + torch.einsum("bnrcijd,jzd->bnrcijz", query, self.pos_embed.width_rel[offset]).unsqueeze(
            -2
        )
        logits = torch.einsum("bnrcijd,bnrcazd->bnrcijaz", query, key) * self.dim_head**-0.5
        logits = logits + position * (self.dim_head**-0.5 if self.scale_pos_embed else 1)
        if self.mask_outside:
            inside = F.pad(torch.ones(1, self.heads, height, width), (halo, halo + right, halo, halo + below))
            inside = self._cut(inside, window, block).squeeze(-1)[:, :, :, :, None, None]
            logits = logits.masked_fill(inside == 0, -torch.inf)
        weights = logits.flatten(-2).softmax(dim=-1).unflatten(-1, (window, window))
        mixed = torch.einsum("bnrcijaz,bnrcazd->bndricj", weights, value)
        mixed = mixed.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, :, :height_out, :width_out]
        if self.stride == 2 and block % 2 == 1:
            mixed = F.avg_pool2d(mixed, 2, ceil_mode=True, count_include_pad=False)
        return self.proj(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _cut(self, planes: Tensor, side: int, step: int) -> Tensor:
        """Squares of a map: batch heads rows columns side side channels."""
        squares = planes.unfold(2, side, step).unfold(3, side, step)
        return squares.unflatten(1, (self.heads, -1)).permute(0, 1, 3, 4, 5, 6, 2)
