"""Stochastic top-k instance masking (STKIM) of ACMIL.

Paper: Zhang et al. 2023, "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
arXiv:2311.07125, section 3.3; code dazhangyu123/ACMIL@e53d19c architecture/transformer.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["check_stkim", "draw", "top_instances_to_hide"]


def check_stkim(top: int, hide_rate: float) -> None:
    """Check the options of a head with STKIM.

    Raises:
        ValueError: `top` is negative, or `hide_rate` is outside 0 to 1.

    Example:
        >>> check_stkim(10, 0.6)
    """
    if top < 0 or not 0 <= hide_rate <= 1:
        raise ValueError(
            f"top is {top} and hide_rate is {hide_rate}; give a number of highest instances (0 for none, "
            "10 in the paper) and the share of them to hide, from 0 to 1 (0.6)"
        )


def draw(shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "..."]:
    """Uniform random numbers, 0 to 1, whose order decides which instances are hidden.

    Example:
        >>> draw((2, 3), torch.device("cpu")).shape
        torch.Size([2, 3])
    """
    return torch.rand(shape, device=device)


def top_instances_to_hide(
    scores: Float[Tensor, "bags maps instances"], top: int, hide_rate: float
) -> Bool[Tensor, "bags maps instances"]:
    """A mask of instances to hide: for each map, a random share of its highest instances.

    Of the k = min(top, n) highest of n instances int(k * hide_rate) are hidden, independently for each map.

    Args:
        scores: scores of the instances, -inf for padding.
        top: number of highest instances among which some are hidden.
        hide_rate: share of them that is hidden, 0 to 1.

    Example:
        >>> top_instances_to_hide(torch.tensor([[[3.0, 1.0, 2.0, 0.0]]]), 2, 1.0)
        tensor([[[ True, False,  True, False]]])
    """
    top = min(top, scores.shape[-1])
    values, indices = scores.topk(top, dim=-1)
    present = values != -torch.inf
    drawn = draw((*values.shape,), scores.device).masked_fill(~present, torch.inf)
    counts = (present.sum(dim=-1, keepdim=True).double() * hide_rate).long()
    chosen = drawn.argsort(dim=-1).argsort(dim=-1) < counts
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, indices, chosen)
