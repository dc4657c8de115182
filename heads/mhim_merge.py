"""The global recycle network of MHIM v2: cross-attention that merges sampled instances into a few tokens.

Paper: Tang et al. 2025, "Multiple Instance Learning Framework with Masked Hard Instance Mining for Gigapixel
Histopathology Image Analysis", IJCV, arXiv:2509.11526; code DearCaat/MHIM-MIL@9d0c91a modules/mhim_modules/merge.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["Merge", "noise"]


def noise(count: int, device: torch.device) -> Float[Tensor, "count"]:
    """Random numbers whose order decides which instances are kept and which are merged.

    Example:
        >>> noise(3, torch.device("cpu")).shape
        torch.Size([3])
    """
    return torch.rand(count, device=device)


class Merge(nn.Module):
    """Cross-attention from global queries, which are moving averages of its outputs, to the sampled instances.

    Args:
        width: width of an instance.
        tokens: number of global queries.
        keep: share of the instances that are not merged in training, 0 to 1, at least one instance.
        momentum: momentum of the queries, 0 to 1.
        heads: heads of the attention, each of 64 channels.
        drop_rate: dropout of the attention and of the output in training, 0 to below 1.

    Example:
        >>> Merge(8, tokens=2).eval()(torch.rand(5, 8))[0].shape
        torch.Size([7, 8])
    """

    def __init__(
        self,
        width: int,
        *,
        tokens: int = 5,
        keep: float = 0.8,
        momentum: float = 0.9999,
        heads: int = 8,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.keep, self.momentum = keep, momentum
        self.norm = nn.LayerNorm(width)
        self.attn = _CrossAttention(width, heads, drop_rate)
        self.global_q = nn.Parameter(torch.empty(1, tokens, width), requires_grad=False)
        bound = math.sqrt(6 / (3 * 16 * 16 + width))  # as the prompts in visual prompt tuning
        nn.init.uniform_(self.global_q, -bound, bound)
        self.found: Tensor | None = None

    def forward(
        self, instances: Float[Tensor, "instances width"]
    ) -> tuple[Float[Tensor, "tokens width"], Int[Tensor, "kept"]]:
        """Kept instances followed by the tokens, and the indices of the kept; outside training all are kept."""
        kept = torch.arange(len(instances), device=instances.device)
        merged = instances
        if self.training:
            order = noise(len(instances), instances.device).argsort()
            kept, drawn = order.tensor_split([max(1, int(len(order) * self.keep))])
            merged = instances[drawn]
        if not len(merged):
            return instances[kept], kept
        found = self.attn(self.norm(merged), self.norm(self.global_q[0]))
        if self.training:
            self.found = found.detach()
        return torch.cat([instances[kept], found]), kept

    def after_step(self) -> None:
        """Update the queries with their last outputs in training."""
        if self.found is not None:
            self.global_q.data.mul_(self.momentum).add_(self.found, alpha=1 - self.momentum)
            self.found = None


class _CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int, drop_rate: float) -> None:
        super().__init__()
        self.heads, self.drop_rate = heads, drop_rate
        self.to_kv = nn.Linear(width, 2 * 64 * heads, bias=False)
        self.to_q = nn.Linear(width, 64 * heads, bias=False)
        self.to_out = nn.Sequential(nn.Linear(64 * heads, width), nn.Dropout(drop_rate))

    def forward(self, instances: Tensor, queries: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for part in (self.to_q(queries), *self.to_kv(instances).chunk(2, dim=-1))
        )
        rate = self.drop_rate if self.training else 0.0
        found = F.scaled_dot_product_attention(query[None], key[None], value[None], dropout_p=rate)[0]
        return self.to_out(found.transpose(0, 1).flatten(1))
