"""Discrete-time survival: hazards of time intervals, their likelihood with censoring, and concordance.

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

__all__ = ["comparable_pairs", "concordance", "intervals_of", "risk", "survival_cuts", "survival_loss"]


def survival_cuts(times: Float[Tensor, "bags"], events: Bool[Tensor, "bags"], intervals: int = 4) -> list[float]:
    """Boundaries of time intervals with equal numbers of events: quantiles of the event times.

    Args:
        times: time of the event or of the end of follow-up; 0 or more, in any unit.
        events: whether the event occurred; otherwise the patient is censored.
        intervals: number of intervals, at least 2.

    Raises:
        ValueError: there are fewer distinct event times than intervals.

    Example:
        >>> survival_cuts(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]), torch.tensor([True] * 4 + [False]), 2)
        [2.5]
    """
    if intervals < 2:
        raise ValueError(f"intervals is {intervals}; give at least 2")
    happened = times[events].double()
    if not len(happened):
        raise ValueError(f"all {len(times)} bags are censored; survival training needs events")
    cuts = torch.quantile(happened, torch.arange(1, intervals, dtype=torch.float64) / intervals)
    if len(happened) < intervals or len(cuts.unique()) < len(cuts):
        raise ValueError(
            f"{len(happened)} events at {len(happened.unique())} times are too few for {intervals} intervals; "
            "use fewer intervals or fewer folds"
        )
    return cuts.tolist()


def intervals_of(times: Float[Tensor, "bags"], cuts: Sequence[float]) -> Int[Tensor, "bags"]:
    """The index of the interval of each time; a time at a boundary is in the later interval.

    Example:
        >>> intervals_of(torch.tensor([0.0, 2.5, 7.0]), [2.5])
        tensor([0, 1, 1])
    """
    edges = torch.tensor(cuts, dtype=times.dtype, device=times.device)
    return torch.searchsorted(edges, times.contiguous(), right=True)


def survival_loss(logits: Float[Tensor, "rows intervals"], targets: Int[Tensor, "rows 2"]) -> Float[Tensor, ""]:
    """The negative log-likelihood under the hazards h = sigmoid(logits), mean over rows.

    With S(y) = prod over t <= y of (1 - h(t)), the probability of surviving interval y, the likelihood of an event in y
    is S(y - 1) h(y) and that of censoring in y is S(y) (Zadeh and Schmid), computed from the logits without clipping.

    Args:
        logits: logits of the hazard of each interval.
        targets: the interval, and 1 for an event or 0 for censoring.

    Example:
        >>> survival_loss(torch.zeros(2, 2), torch.tensor([[1, 1], [0, 0]]))  # 1/2 * 1/2, and 1/2
        tensor(1.0397)
    """
    interval, happened = targets[:, :1], targets[:, 1:].to(logits.dtype)
    survived = F.logsigmoid(-logits)  # rows intervals
    until = torch.arange(logits.shape[1], device=logits.device) < interval
    before = (survived * until).sum(dim=1, keepdim=True)
    here = happened * F.logsigmoid(logits.gather(1, interval)) + (1 - happened) * survived.gather(1, interval)
    return -(before + here).mean()


def risk(logits: Float[Tensor, "rows intervals"]) -> Float[Tensor, "rows"]:
    """A risk score, higher for earlier events: minus the expected number of intervals survived, -sum over y of S(y).

    Example:
        >>> risk(torch.tensor([[9.0, 9.0], [-9.0, -9.0]])).round()
        tensor([-0., -2.])
    """
    return -F.logsigmoid(-logits.float()).cumsum(dim=1).exp().sum(dim=1)


def comparable_pairs(times: Float[Tensor, "bags"], events: Bool[Tensor, "bags"]) -> Bool[Tensor, "bags bags"]:
    """Pairs of patients that concordance compares: the first had the event before the time of the second.

    At equal times an event precedes a censored patient; two events at equal times are not compared.

    Example:
        >>> comparable_pairs(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([True, True, False])).int()
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
    """Harrell's concordance index, 0-1: the share of comparable pairs in which the earlier event has the higher risk.

    Equal risks count half; see `comparable_pairs` for equal times. It is NaN if there is no comparable pair.

    Example:
        >>> concordance(torch.tensor([3.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, True, False]))
        tensor(0.8333)
    """
    compared = comparable_pairs(times, events)
    higher = (risks[:, None] > risks[None, :]).double() + 0.5 * (risks[:, None] == risks[None, :]).double()
    return ((higher * compared).sum() / compared.sum()).float()
