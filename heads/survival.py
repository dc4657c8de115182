"""Survival from a bag: hazards of intervals of time, their likelihood with censoring, and concordance.

Sources: Zadeh and Schmid 2020, "Bias in Cross-Entropy-Based Training of Deep Survival Networks", IEEE TPAMI,
doi:10.1109/TPAMI.2020.2979450 (the likelihood); Chen et al. 2021, mahmoodlab/MCAT (four intervals by quantiles, the
risk); Harrell et al. 1982, doi:10.1001/jama.1982.03320430047030 (concordance).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["concordance", "intervals_of", "pairs", "risk", "survival_cuts", "survival_loss"]


def survival_cuts(times: Float[Tensor, "bags"], events: Bool[Tensor, "bags"], intervals: int = 4) -> list[float]:
    """Cuts between intervals of time that hold alike many events: quantiles of the times of those who had one.

    Args:
        times: of the event, or to which a patient was followed; 0 or more, in any unit.
        events: whether it happened; otherwise the patient is censored.
        intervals: at least 2.

    Raises:
        ValueError: there are fewer different event times than intervals.

    Example:
        >>> survival_cuts(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]), torch.tensor([True] * 4 + [False]), 2)
        [2.5]
    """
    if intervals < 2:
        raise ValueError(f"survival has {intervals} intervals of time; give at least 2")
    happened = times[events].double()
    if not len(happened):
        raise ValueError(f"all {len(times)} bags are censored; survival is learnt from events, and there is none")
    cuts = torch.quantile(happened, torch.arange(1, intervals, dtype=torch.float64) / intervals)
    if len(happened) < intervals or len(cuts.unique()) < len(cuts):
        raise ValueError(
            f"{len(happened)} events at {len(happened.unique())} different times do not make {intervals} intervals; "
            "take fewer intervals, or fewer folds"
        )
    return cuts.tolist()


def intervals_of(times: Float[Tensor, "bags"], cuts: Sequence[float]) -> Int[Tensor, "bags"]:
    """The interval in which each time lies; a time at a cut is in the later one.

    Example:
        >>> intervals_of(torch.tensor([0.0, 2.5, 7.0]), [2.5])
        tensor([0, 1, 1])
    """
    edges = torch.tensor(cuts, dtype=times.dtype, device=times.device)
    return torch.searchsorted(edges, times.contiguous(), right=True)


def survival_loss(logits: Float[Tensor, "rows intervals"], targets: Int[Tensor, "rows 2"]) -> Float[Tensor, ""]:
    """Minus the logarithm of the likelihood under the hazards sigmoid(logits), mean over rows.

    With S(y) the chance to be past interval y, an event in y has likelihood S(y - 1) h(y), a patient censored in y has
    S(y): Zadeh and Schmid's equation, computed from the logits, so that nothing is clipped.

    Args:
        logits: of the hazard of each interval.
        targets: the interval, and 1 for an event or 0 for censored.

    Example:
        >>> survival_loss(torch.zeros(2, 2), torch.tensor([[1, 1], [0, 0]]))  # 1/2 * 1/2, and 1/2
        tensor(1.0397)
    """
    place, happened = targets[:, :1], targets[:, 1:].to(logits.dtype)
    outlived = F.logsigmoid(-logits)  # rows intervals
    until = torch.arange(logits.shape[1], device=logits.device) < place
    before = (outlived * until).sum(dim=1, keepdim=True)
    here = happened * F.logsigmoid(logits.gather(1, place)) + (1 - happened) * outlived.gather(1, place)
    return -(before + here).mean()


def risk(logits: Float[Tensor, "rows intervals"]) -> Float[Tensor, "rows"]:
    """A number that is higher the sooner an event is expected: minus the expected number of intervals outlived.

    Example:
        >>> risk(torch.tensor([[9.0, 9.0], [-9.0, -9.0]])).round()
        tensor([-0., -2.])
    """
    return -F.logsigmoid(-logits.float()).cumsum(dim=1).exp().sum(dim=1)


def pairs(times: Float[Tensor, "bags"], events: Bool[Tensor, "bags"]) -> Bool[Tensor, "bags bags"]:
    """Pairs that concordance compares: the first had the event, and the second was known to be without it for longer.

    At one time an event comes before a censored patient; two events at one time are not compared.

    Example:
        >>> pairs(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([True, True, False])).int()
        tensor([[0, 1, 1],
                [0, 0, 1],
                [0, 0, 0]], dtype=torch.int32)
    """
    earlier = times[:, None] < times[None, :]
    tied = (times[:, None] == times[None, :]) & ~events[None, :]
    return events[:, None] & (earlier | tied)


def concordance(
    risks: Float[Tensor, "bags"], times: Float[Tensor, "bags"], events: Bool[Tensor, "bags"]
) -> Float[Tensor, ""]:
    """Harrell's concordance index, 0-1: the share of compared pairs in which the earlier event has the higher risk.

    Equal risks count half; see `pairs` for ties of time. It is nan if no pair can be compared.

    Example:
        >>> concordance(torch.tensor([3.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, True, False]))
        tensor(0.8333)
    """
    compared = pairs(times, events)
    higher = (risks[:, None] > risks[None, :]).double() + 0.5 * (risks[:, None] == risks[None, :]).double()
    return ((higher * compared).sum() / compared.sum()).float()
