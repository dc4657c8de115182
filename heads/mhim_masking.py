"""The masks of MHIM: instances with high scores, with low scores, and random ones.

Paper: Tang et al. 2023, "Multiple Instance Learning Framework with Masked Hard Instance Mining for Whole Slide Image
Classification", ICCV 2023, arXiv:2307.15254; code DearCaat/MHIM-MIL branch v1 and @9d0c91a modules/mhim_modules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Masks", "permutation"]


def permutation(count: int, device: torch.device) -> Int[Tensor, "count"]:
    """A random permutation of `count` indices.

    Example:
        >>> permutation(3, torch.device("cpu")).sort().values
        tensor([0, 1, 2])
    """
    return torch.randperm(count, device=device)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Shares of a bag that are masked by each rule; an instance may be chosen by several.

    Attributes:
        random: share of all instances, masked at random, 0 to 1.
        low: share with the lowest scores, 0 to 1.
        high: share with high scores, 0 to 1: a random `high_share` of the high / high_share highest.
        high_share: see `high`; above 0, up to 1.

    Raises:
        ValueError: a share is outside 0 to 1.

    Example:
        >>> Masks(low=0.5).kept(torch.tensor([[0.4, 0.1, 0.3, 0.2]]))
        tensor([0, 2])
    """

    random: float = 0.0
    low: float = 0.0
    high: float = 0.0
    high_share: float = 0.5

    def __post_init__(self) -> None:
        shares = (self.random, self.low, self.high)
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.high_share <= 1:
            raise ValueError(
                f"mask shares are random {self.random}, low {self.low}, high {self.high} and high_share "
                f"{self.high_share}; give numbers from 0 to 1, high_share above 0"
            )

    def kept(self, scores: Float[Tensor, "maps instances"], high: float | None = None) -> Int[Tensor, "kept"]:
        """Indices of the instances that are kept, ascending; all, if the rules would mask all.

        Args:
            scores: scores of the teacher; with several maps (heads) each votes for its own choice.
            high: overrides `self.high`.
        """
        count = scores.shape[-1]
        masked = torch.zeros(count, dtype=torch.bool, device=scores.device)
        if self.random:  # the authors draw from the ascending order of the scores
            masked[_drawn(_extreme(scores, count, largest=False), self.random)] = True
        if self.low:
            masked[_extreme(scores, math.ceil(count * self.low), largest=False)] = True
        high = self.high if high is None else high
        if high:
            share, among = self.high_share, high / self.high_share
            if among > 1:
                share, among = high, 1.0
            chosen = _extreme(scores, math.ceil(count * among), largest=True)
            masked[_drawn(chosen, share) if share < 1 else chosen] = True
        kept = (~masked).nonzero()[:, 0]
        return kept if len(kept) else torch.arange(count, device=scores.device)


def _drawn(indices: Tensor, share: float) -> Tensor:
    order = permutation(len(indices), indices.device)
    return indices[order[: math.ceil(len(indices) * share)]]


def _extreme(scores: Tensor, count: int, largest: bool) -> Tensor:
    if len(scores) == 1:
        return scores[0].topk(count, largest=largest).indices
    marked = scores.topk(count, dim=-1, largest=largest, sorted=False).indices
    votes = torch.zeros_like(scores).scatter(-1, marked, 1.0).sum(dim=0)
    return votes.topk(count, sorted=False).indices
