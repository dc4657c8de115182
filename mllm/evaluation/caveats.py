"""Caveats of a score table: gains that come with worse text, or with a mere shift towards one answer.

A score can improve for trivial reasons: short captions mention fewer objects that are not there, and a model that
answers no more often wins where it answered yes too often. So every gain is checked against text statistics and the
share of yes.

Sources: Rohrbach et al. 2018, arXiv:1809.02156 (CHAIR); Li et al. 2023, arXiv:2305.10355 (POPE and its yes ratio);
Green and Swets 1966, "Signal detection theory and psychophysics" (d', which is invariant to a bias towards one answer).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["find_caveats"]

#: With fewer images percentile intervals are too narrow.
FEW_IMAGES = 30
#: Bounds of the mean number of words, relative to the baseline.
MIN_LENGTH, MAX_LENGTH = 0.8, 1.25
#: Tolerated changes in percentage points.
TOLERANCE = {
    "repetition_percent": 5.0,
    "empty_percent": 1.0,
    "at_limit_percent": 10.0,
    "yes_percent": 2.0,
    "recall": 1.0,
}

_HALLUCINATION = re.compile(r"(chair|hal|hallucinat\w*|cog)(_|$)", re.IGNORECASE)  # lower is better
_RECALL = re.compile("recall|cover", re.IGNORECASE)
_RIGHT = re.compile("accuracy|f1", re.IGNORECASE)


def find_caveats(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Warnings about a score table, from its figures under the first parser.

    Args:
        summary: as from `regard.mllm.evaluation.score_tables.score`, without the warnings.

    Returns:
        A list of `arm` (or `None`), `part` (or `None`) and `text`: answers that are missing or belong to no sample;
        inactive arms; few images; fewer hallucinations with much shorter or longer, more repetitive, empty or cut text,
        or with lower recall; more correct answers with another share of yes.
    """
    found: list[dict[str, Any]] = []

    def warn(arm: str | None, part: str | None, text: str) -> None:
        found.append({"arm": arm, "part": part, "text": text})

    for arm in summary["arms"]:
        if summary["missing"][arm]:
            warn(
                arm,
                None,
                f"{summary['missing'][arm]} of {summary['samples']} samples have no answer; they are excluded for all "
                f"arms",
            )
        if summary["unknown"][arm]:
            warn(
                arm,
                None,
                f"{summary['unknown'][arm]} answers belong to no sample; are they from another version of the "
                f"benchmark?",
            )
    rivals = [arm for arm in summary["arms"] if arm != summary["baseline"]]
    whole = [entry for entry in summary["parts"] if entry["kind"] != "mean"][-1]
    for arm in rivals:
        if whole["text"]["active_percent"][arm]["value"] == 0:
            warn(arm, None, "its interventions were inactive in all answers; check that their options fit the model")
        elif whole["text"]["changed_percent"][arm]["value"] == 0:
            warn(arm, None, "all answers equal those of the baseline; check that it is active")
    for entry in summary["parts"]:
        if entry["kind"] != "part":
            continue
        if entry["images"] < FEW_IMAGES:
            warn(None, entry["part"], f"{entry['images']} images only; intervals are rough and tend to be too narrow")
        for arm in rivals:
            for caveat in _of_gains(entry, arm, summary["baseline"]):
                warn(arm, entry["part"], caveat)
    return found


def _of_gains(entry: Mapping[str, Any], arm: str, baseline: str) -> list[str]:
    """Caveats of the gains of an arm in a part."""
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
    if gained and parser["parsed"]:
        yes, base = (parser["parsed"]["yes_percent"][own]["value"] for own in (arm, baseline))
        if abs(yes - base) > TOLERANCE["yes_percent"]:
            found.append(
                f"higher {', '.join(gained)}, but {yes:.1f} % of the answers are yes instead of {base:.1f} %; a shift "
                "towards one answer has the same effect" + _about_d_prime(parser["metrics"], arm, baseline)
            )
    return found


def _about_d_prime(metrics: Mapping[str, Any], arm: str, baseline: str) -> str:
    """The change of d'; nothing where all answers to one kind of question are correct, which makes d' unreliable."""
    change = metrics["d_prime"][arm]["difference"] if "d_prime" in metrics else None
    ends = {
        metrics[name][one]["value"] for name in ("precision", "recall") if name in metrics for one in (arm, baseline)
    }
    if change is None or change["low"] is None or ends & {0, 1}:
        return ""
    return (
        f"; d', which is invariant to such a shift, changes by {change['value']:+.2f} "
        f"({change['low']:+.2f} to {change['high']:+.2f})"
    )


def _text_reasons(text: Mapping[str, Any], arm: str, baseline: str) -> list[str]:
    own, base = ({name: cells[one]["value"] for name, cells in text.items()} for one in (arm, baseline))
    reasons = []
    ratio = own["words"] / base["words"] if base["words"] else math.inf if own["words"] else 1.0
    if not MIN_LENGTH <= ratio <= MAX_LENGTH:
        reasons.append(f"answers have {own['words']:.1f} words instead of {base['words']:.1f}")
    for name, words in (
        ("repetition_percent", "of the text is repetition"),
        ("empty_percent", "of the answers are empty"),
        ("at_limit_percent", "of the answers are cut at the token limit"),
    ):
        if own[name] - base[name] > TOLERANCE[name]:
            reasons.append(f"{own[name]:.1f} % {words}, instead of {base[name]:.1f} %")
    return reasons


def _really_fell(name: str, change: Mapping[str, Any]) -> bool:
    points = change["value"] * (1 if name.endswith("_percent") else 100)
    return points < -TOLERANCE["recall"] or (change["high"] is not None and change["high"] < 0)
