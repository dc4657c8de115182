"""Bi-level routing attention written out in NCHW: keys are gathered with an index as large as they are.

Source: Zhu et al. 2023, arXiv:2303.08810, algorithm 1.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainBiLevelRoutingAttention"]


class PlainBiLevelRoutingAttention(nn.Module):
    """Routing and token attention; arguments as for `regard.vision.attention.biformer.BiLevelRoutingAttention`."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        n_win: int = 7,
        topk: int = 4,
        side_dwconv: int = 5,
        padding: Literal["mask", "input", "projected"] = "mask",
    ) -> None:
        super().__init__()
        self.num_heads, self.n_win, self.topk, self.padding = num_heads, n_win, topk, padding
        self.scale = dim**-0.5
        self.qkv = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim)})
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim)
        self.wo = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend from every region to the regions it is routed to."""
        height, width = x.shape[2:]
        high, wide = (
            max(1, side // self.n_win) if self.padding == "projected" else -(-side // self.n_win)
            for side in (height, width)
        )
        if self.padding == "input":
            rows = columns = self.n_win
            x = F.pad(x, (0, columns * wide - width, 0, rows * high - height))
        else:
            rows, columns = -(-height // high), -(-width // wide)
        qkv = self.qkv["qkv"](x.permute(0, 2, 3, 1))  # batch height width 3*dim
        value_map = qkv.chunk(3, dim=-1)[2].permute(0, 3, 1, 2)  # batch dim height width
        lepe = self.lepe(value_map).permute(0, 2, 3, 1)[:, :height, :width]
        valid = torch.ones_like(qkv[:1, :, :, :1])
        pad = (0, 0, 0, columns * wide - qkv.shape[2], 0, rows * high - qkv.shape[1])
        qkv, valid = F.pad(qkv, pad), F.pad(valid, pad)

        def by_region(t: Tensor) -> Tensor:  # batch height width c -> batch regions tokens c
            t = t.view(len(t), rows, high, columns, wide, -1).transpose(2, 3)
            return t.reshape(len(t), rows * columns, high * wide, -1)

        query, key, value = by_region(qkv).chunk(3, dim=-1)
        valid = by_region(valid)  # 1 regions tokens 1
        region_query = query.detach().float().sum(2) / valid.float().sum(2)  # batch regions dim
        region_key = key.detach().float().sum(2) / valid.float().sum(2)
        logits = self.scale * region_query @ region_key.transpose(1, 2)  # batch regions regions
        chosen = logits.topk(min(self.topk, rows * columns)).indices  # batch regions topk

        def gather(t: Tensor) -> Tensor:  # batch regions tokens c -> batch regions topk*tokens c
            _, regions, tokens, channels = t.shape
            every = t[:, None].expand(-1, regions, -1, -1, -1)  # batch regions regions tokens c
            index = chosen[..., None, None].expand(-1, -1, -1, tokens, channels)
            return every.gather(2, index).flatten(2, 3)

        def by_head(t: Tensor) -> Tensor:  # batch regions tokens c -> batch regions heads tokens head_dim
            return t.unflatten(-1, (self.num_heads, -1)).transpose(2, 3)

        query, key, value = by_head(query), by_head(gather(key)), by_head(gather(value))
        pairs = self.scale * query @ key.transpose(-2, -1)  # batch regions heads tokens topk*tokens
        if self.padding == "mask":
            kept = gather(valid.expand(len(x), -1, -1, -1))[..., 0]  # batch regions topk*tokens
            pairs = pairs.masked_fill(kept[:, :, None, None] == 0, -torch.inf)
        mixed = (pairs.softmax(dim=-1) @ value).transpose(2, 3).flatten(3)  # batch regions tokens dim
        mixed = mixed.view(len(x), rows, columns, high, wide, -1).transpose(2, 3)
        mixed = mixed.reshape(len(x), rows * high, columns * wide, -1)[:, :height, :width]
        return self.wo(mixed + lepe).permute(0, 3, 1, 2)
