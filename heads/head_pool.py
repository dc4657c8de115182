"""Multi-head attention of one learned query over a bag, without computing keys and values of every instance.

For one query q, head k scores the instance h_i by

    s_ik = q_k . (K_k h_i + c_k) / sqrt(d) = h_i . (K_k^T q_k) / sqrt(d) + constant

and reads sum_i a_ik (V_k h_i + e_k) = V_k (sum_i a_ik h_i) + e_k. So the projections K and V are applied to one vector
for each head instead of to all instances. The result is the same, and each feature costs `heads` multiply-adds instead
of twice the width.

Source of the layer: dazhangyu123/ACMIL@e53d19c architecture/transformer.py, MutiHeadAttention.
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
    """Check that the width is a multiple of the number of heads.

    Raises:
        ValueError: it is not, or there is no head.

    Example:
        >>> check_heads(512, 8)
    """
    if heads < 1 or width % heads:
        raise ValueError(f"a width of {width} is not a multiple of {heads} heads; give a width that is")


class QueryAttention(nn.Module):
    """Layers of multi-head attention from one query: projections, output with dropout, layer norm; no residual.

    Args:
        width: width of instances and query.
        heads: number of heads, a divisor of the width.
        drop_rate: dropout of the output in training, 0 to below 1.
        keys: whether it has query and key projections; without them it only reads values under given weights.

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
        """For each head the vector whose product with an instance, plus the constant, is the score."""
        projected = self.q_proj(query).view(self.heads, -1, 1)  # heads channels 1
        keys = self.k_proj.weight.view(self.heads, -1, len(query))
        scale = 1 / math.sqrt(projected.shape[1])
        constants = (self.k_proj.bias.view(self.heads, -1) * projected[..., 0]).sum(dim=-1)
        return (projected * keys).sum(dim=1) * scale, constants * scale

    def read(self, pooled: Float[Tensor, "bags heads width"]) -> Float[Tensor, "bags width"]:
        """The attention's output, from the mean instance under the weights of each head."""
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
    """The mean instance under each map, the weights, and the scores before softmax.

    Args:
        instances: projected instances.
        valid: True for instances, False for padding; None if there is no padding.
        directions: the vector of each map, see `QueryAttention.directions`.
        constants: what is added to the product.
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
