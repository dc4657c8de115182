"""Which instances a teacher hides from its student: what it likes most, what it likes least, and some at random.

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
    """A random order.

    Example:
        >>> permutation(3, torch.device("cpu")).sort().values
        tensor([0, 1, 2])
    """
    return torch.randperm(count, device=device)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Shares of a bag that are hidden; what several rules choose is hidden once.

    Attributes:
        random: of all instances.
        low: those with the lowest scores.
        high: a random `high_share` of the highest, so many that this is what they come to.
        high_share: see `high`; above 0.

    Raises:
        ValueError: a share is not from 0 to 1.

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
                f"the shares to hide are {self.random} at random, {self.low} low and {self.high} high, of which "
                f"{self.high_share}; give numbers from 0 to 1, the last above 0"
            )

    def kept(self, scores: Float[Tensor, "maps instances"], high: float | None = None) -> Int[Tensor, "kept"]:
        """Places of the instances that stay, ascending; all, where the rules would hide all.

        Args:
            scores: of the teacher; with several maps (heads) each marks its own, and the most marked are chosen.
            high: share of the highest, in the place of the own.
        """
        count = scores.shape[-1]
        hidden = torch.zeros(count, dtype=torch.bool, device=scores.device)
        if self.random:  # the authors draw from the ascending order of the scores
            hidden[_drawn(_extreme(scores, count, largest=False), self.random)] = True
        if self.low:
            hidden[_extreme(scores, math.ceil(count * self.low), largest=False)] = True
        high = self.high if high is None else high
        if high:
            share, among = self.high_share, high / self.high_share
            if among > 1:
                share, among = high, 1.0
            chosen = _extreme(scores, math.ceil(count * among), largest=True)
            hidden[_drawn(chosen, share) if share < 1 else chosen] = True
        kept = (~hidden).nonzero()[:, 0]
        return kept if len(kept) else torch.arange(count, device=scores.device)


def _drawn(places: Tensor, share: float) -> Tensor:
    order = permutation(len(places), places.device)
    return places[order[: math.ceil(len(places) * share)]]


def _extreme(scores: Tensor, count: int, largest: bool) -> Tensor:
    if len(scores) == 1:
        return scores[0].topk(count, largest=largest).indices
    marked = scores.topk(count, dim=-1, largest=largest, sorted=False).indices
    votes = torch.zeros_like(scores).scatter(-1, marked, 1.0).sum(dim=0)
    return votes.topk(count, sorted=False).indices
