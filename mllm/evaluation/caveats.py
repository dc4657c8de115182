"""What speaks against the gains of a table: gains that come with worse text, or with a mere shift towards one answer.

A score may fall or rise for reasons that are no insight: short captions name fewer objects that are not there, and a
model that says no more often wins where it said yes too often. So text and yes share are looked at beside every gain.

Sources: Rohrbach et al. 2018, arXiv:1809.02156 (CHAIR); Li et al. 2023, arXiv:2305.10355 (POPE and its yes ratio);
Green and Swets 1966, "Signal detection theory and psychophysics" (d', which a bias towards one answer does not move).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["doubts"]

#: Fewer images than this make percentile intervals too narrow.
FEW_IMAGES = 30
#: Mean words beyond these multiples of the baseline's are another kind of text.
COLLAPSED, EXPLODED = 0.8, 1.25
#: Points of percent by which these may move before a gain is doubted.
MOVED = {"repetition_percent": 5.0, "empty_percent": 1.0, "at_limit_percent": 10.0, "yes_percent": 2.0, "recall": 1.0}

_HALLUCINATION = re.compile(r"(chair|hal|hallucinat\w*|cog)(_|$)", re.IGNORECASE)  # lower is better
_RECALL = re.compile("recall|cover", re.IGNORECASE)
_RIGHT = re.compile("accuracy|f1", re.IGNORECASE)


def doubts(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Warnings about a table, from its own figures under the first parser.

    Args:
        summary: as `regard.mllm.evaluation.score_tables.score` gives it, without the warnings.

    Returns:
        A list of `arm` (or `None`), `part` (or `None`) and `text`. They are about answers that are missing or belong to
        no sample; arms that did nothing; few images; fewer hallucinations with much shorter or longer, more repetitive,
        empty or cut text, or with lower recall; more right answers with another share of yes.
    """
    found: list[dict[str, Any]] = []

    def warn(arm: str | None, part: str | None, text: str) -> None:
        found.append({"arm": arm, "part": part, "text": text})

    for arm in summary["arms"]:
        if summary["missing"][arm]:
            warn(
                arm, None, f"{summary['missing'][arm]} of {summary['samples']} samples have no answer; left out for all"
            )
        if summary["unknown"][arm]:
            warn(arm, None, f"{summary['unknown'][arm]} answers belong to no sample; another file of the benchmark?")
    rivals = [arm for arm in summary["arms"] if arm != summary["baseline"]]
    whole = [entry for entry in summary["parts"] if entry["kind"] != "mean"][-1]
    for arm in rivals:
        if whole["text"]["active_percent"][arm]["value"] == 0:
            warn(arm, None, "its methods did nothing in any answer: do their options fit the model?")
        elif whole["text"]["changed_percent"][arm]["value"] == 0:
            warn(arm, None, "all answers are the baseline's, word for word: is it active?")
    for entry in summary["parts"]:
        if entry["kind"] != "part":
            continue
        if entry["images"] < FEW_IMAGES:
            warn(None, entry["part"], f"{entry['images']} images only: intervals are rough, and rather too narrow")
        for arm in rivals:
            for doubt in _of_gains(entry, arm, summary["baseline"]):
                warn(arm, entry["part"], doubt)
    return found


def _of_gains(entry: Mapping[str, Any], arm: str, baseline: str) -> list[str]:
    """What speaks against the gains of an arm in a part."""
    parser = next(iter(entry["parsers"].values()))
    changes = {metric: cells[arm]["difference"] for metric, cells in parser["metrics"].items()}
    changes = {metric: change for metric, change in changes.items() if change["value"] is not None}
    headline = next(iter(parser["metrics"]))
    found = []

    fallen = [name for name, change in changes.items() if _HALLUCINATION.match(name) and change["value"] < 0]
    reasons = _text_reasons(entry["text"], arm, baseline) + [
        f"{name} falls by {-change['value']:.3g}"
        for name, change in changes.items()
        if _RECALL.match(name) and _really_fell(name, change)
    ]
    if fallen and reasons:
        found.append(f"lower {', '.join(fallen)}, but {'; '.join(reasons)}")

    gained = [
        name
        for name, change in changes.items()
        if (name == headline or _RIGHT.match(name)) and not _HALLUCINATION.match(name) and change["value"] > 0
    ]
    if gained and parser["said"]:
        yes, base = (parser["said"]["yes_percent"][own]["value"] for own in (arm, baseline))
        if abs(yes - base) > MOVED["yes_percent"]:
            found.append(
                f"higher {', '.join(gained)}, but yes is said in {yes:.1f} % and not {base:.1f} % of the answers: a "
                "shift towards one answer does that, too" + _about_d_prime(parser["metrics"], arm, baseline)
            )
    return found


def _about_d_prime(metrics: Mapping[str, Any], arm: str, baseline: str) -> str:
    """What d' says to a shift; nothing where all answers of a kind are right, since d' cannot be told there."""
    change = metrics["d_prime"][arm]["difference"] if "d_prime" in metrics else None
    ends = {
        metrics[name][one]["value"] for name in ("precision", "recall") if name in metrics for one in (arm, baseline)
    }
    if change is None or change["low"] is None or ends & {0, 1}:
        return ""
    return (
        f"; d', which such a shift does not move, changes by {change['value']:+.2f} "
        f"({change['low']:+.2f} to {change['high']:+.2f})"
    )


def _text_reasons(text: Mapping[str, Any], arm: str, baseline: str) -> list[str]:
    own, base = ({name: cells[one]["value"] for name, cells in text.items()} for one in (arm, baseline))
    reasons = []
    times = own["words"] / base["words"] if base["words"] else math.inf if own["words"] else 1.0
    if not COLLAPSED <= times <= EXPLODED:
        reasons.append(f"answers have {own['words']:.1f} words and not {base['words']:.1f}")
    for name, words in (
        ("repetition_percent", "of the text repeats itself"),
        ("empty_percent", "of the answers are empty"),
        ("at_limit_percent", "of the answers are cut at the limit of tokens"),
    ):
        if own[name] - base[name] > MOVED[name]:
            reasons.append(f"{own[name]:.1f} % {words}, and not {base[name]:.1f} %")
    return reasons


def _really_fell(name: str, change: Mapping[str, Any]) -> bool:
    points = change["value"] * (1 if name.endswith("_percent") else 100)
    return points < -MOVED["recall"] or (change["high"] is not None and change["high"] < 0)
