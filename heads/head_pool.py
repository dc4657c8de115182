"""Multi-head attention of one learned query over a bag, without keys and values of every instance.

For one query q, head k scores instance h by (q_k . (K_k h + c_k)) / sqrt(d), which is h . (K_k^T q_k) and a constant;
and what it reads, sum_i a_i (V_k h_i + e_k), is V_k (sum_i a_i h_i) + e_k. So the projections of keys and values are
applied to one vector instead of to all instances: the numbers are the same, and a bag costs `heads` multiply-adds a
feature instead of twice the width.

Source of what is computed: dazhangyu123/ACMIL@e53d19c architecture/transformer.py, MutiHeadAttention.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .attention_pool import HIDDEN
from .layers import instance_softmax, weighted_mean

__all__ = ["QueryAttention", "check_heads", "pool_under"]


def check_heads(width: int, heads: int) -> None:
    """Check that the heads share the width.

    Raises:
        ValueError: they do not.

    Example:
        >>> check_heads(512, 8)
    """
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} heads cannot share a width of {width}; give a width that {heads} divides")


class QueryAttention(nn.Module):
    """The layers of one query's attention: projections, output with dropout, layer norm; no residual.

    Args:
        width: of instances and query.
        heads: how many, a divisor of the width.
        drop_rate: dropout of the output in training, 0 to below 1.
        keys: whether it scores instances itself; without, it reads under weights that others made.

    Example:
        >>> attention = QueryAttention(16, 4)
        >>> vectors, constants = attention.directions(torch.rand(16))
        >>> vectors.shape, attention.read(torch.rand(2, 4, 16)).shape
        (torch.Size([4, 16]), torch.Size([2, 16]))
    """

    def __init__(self, width: int, heads: int, *, drop_rate: float = 0.1, keys: bool = True) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        if keys:
            self.q_proj = nn.Linear(width, width)
            self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(drop_rate)

    def directions(self, query: Float[Tensor, "width"]) -> tuple[Float[Tensor, "heads width"], Float[Tensor, "heads"]]:
        """What an instance is multiplied with, and what is added, to give each head's score."""
        asked = self.q_proj(query).view(self.heads, -1, 1)  # heads channels 1
        keys = self.k_proj.weight.view(self.heads, -1, len(query))
        scale = 1 / math.sqrt(asked.shape[1])
        constants = (self.k_proj.bias.view(self.heads, -1) * asked[..., 0]).sum(dim=-1)
        return (asked * keys).sum(dim=1) * scale, constants * scale

    def read(self, pooled: Float[Tensor, "bags heads width"]) -> Float[Tensor, "bags width"]:
        """The answer, from the mean instance under the weights of each head."""
        values = self.v_proj.weight.view(self.heads, -1, pooled.shape[-1])
        found = torch.einsum("bhw,hcw->bhc", pooled, values).flatten(1) + self.v_proj.bias
        return self.layer_norm(self.dropout(self.out_proj(found)))


def pool_under(
    instances: Float[Tensor, "bags instances width"],
    valid: Bool[Tensor, "bags instances"] | None,
    directions: Float[Tensor, "maps width"],
    constants: Float[Tensor, "maps"],
    hide: Callable[[Float[Tensor, "bags maps instances"]], Bool[Tensor, "bags maps instances"]] | None = None,
) -> tuple[
    Float[Tensor, "bags maps width"], Float[Tensor, "bags maps instances"], Float[Tensor, "bags maps instances"]
]:
    """Mean instance under each map, the weights, and the scores before softmax.

    Args:
        instances: projected.
        valid: where they are.
        directions: what gives a score of each map.
        constants: what is added to it.
        hide: as in `attention_pool`.

    Example:
        >>> pooled, weights, scores = pool_under(torch.rand(2, 5, 4), None, torch.rand(3, 4), torch.zeros(3))
        >>> pooled.shape, weights.shape
        (torch.Size([2, 3, 4]), torch.Size([2, 3, 5]))
    """
    scores = (instances @ directions.t() + constants).transpose(1, 2)
    scores = scores.float() if scores.itemsize < 4 else scores
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None], -torch.inf)
    if hide is not None:
        scores = scores.masked_fill(hide(scores.detach()), HIDDEN)
    weights = instance_softmax(scores, None)
    return weighted_mean(weights, instances), weights, scores
