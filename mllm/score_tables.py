"""One table of N arms on the same samples: metrics with intervals, paired differences, and what a gain may hide.

A score may fall or rise for reasons that are no insight: short captions name fewer objects that are not there, and a
model that says no more often wins where it said yes too often. So text and yes share are told beside every metric, and
gains that come with them are named.

Sources: Rohrbach et al. 2018, arXiv:1809.02156 (CHAIR); Li et al. 2023, arXiv:2305.10355 (POPE and its yes ratio).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answer_store import StoredAnswer
from .benchmarks.contract import Benchmark, Counted, Sample
from .statistics import LEVEL, Estimate, Metrics, bootstrap, holm, mcnemar

__all__ = ["repetition", "score"]

#: Words of the sequences that `repetition` looks for.
SEQUENCE = 4
#: Fewer images than this make percentile intervals too narrow.
FEW_IMAGES = 30
#: Mean words beyond these multiples of the baseline's are another kind of text.
COLLAPSED, EXPLODED = 0.8, 1.25
#: Points of percent by which these may move before a gain is doubted.
MOVED = {"repetition_percent": 5.0, "empty_percent": 1.0, "at_limit_percent": 10.0, "yes_percent": 2.0, "recall": 1.0}

_HALLUCINATION = re.compile(r"(chair|hal|hallucinat\w*|cog)(_|$)", re.IGNORECASE)  # lower is better
_RECALL = re.compile("recall|cover", re.IGNORECASE)
_RIGHT = re.compile("accuracy|f1", re.IGNORECASE)


@dataclass(frozen=True)
class _Group:
    """Samples that are scored together."""

    part: str
    kind: str
    rows: list[int]


@dataclass(frozen=True)
class _Paired:
    """Samples that every arm has answered, and what was made of the answers, in one order."""

    samples: list[Sample]
    answers: dict[str, list[StoredAnswer]]
    counted: dict[str, list[Mapping[str, Counted]]]
    baseline: str


def score(
    samples: Sequence[Sample],
    benchmark: Benchmark,
    answers: Mapping[str, Iterable[StoredAnswer]],
    *,
    baseline: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score arms on the samples that all of them have answered.

    Images are resampled (see `regard.mllm.statistics.bootstrap`), for every part by itself. Several parts are also
    scored as one ("pooled": their sums are added) and by the mean of their metrics. Holm's correction is over the arms
    that are compared to the baseline, for each part, parser and metric by itself.

    Args:
        samples: of the benchmark.
        benchmark: its rules.
        answers: of each arm by name, such as `regard.mllm.answer_store.read_answers` gives; the first one for an id
            counts.
        baseline: the arm that others are compared to; the first one by default.
        resamples: of images.
        seed: of the resamples.

    Returns:
        A summary in JSON's types; what is not defined is `None`:

        - `benchmark`, `baseline`, `arms` (names, the baseline first), `resamples`, `seed`, `level` (0.95);
        - `samples`, `paired`, `images` (counts), `missing` and `unknown` (arm -> count: samples without an answer,
          answers without a sample);
        - `parts`: a list of `part`, `kind` ("part", "pooled" or "mean"), `samples`, `images`,
          `parsers`: parser -> `metrics`, `mcnemar`, `said`, and
          `guard`: arm -> `words` (mean), `tokens` (mean), `seconds` (mean), `repetition_percent`, `empty_percent`,
          `at_limit_percent`, `yes_percent` (by the first parser), `changed_percent` (answers that are not the
          baseline's), `active_percent` (answers in which a method did something);
        - `metrics`: metric -> arm -> `value`, `low`, `high`, `undefined`, `difference`, which is `None` for the
          baseline, or `value`, `low`, `high`, `undefined`, `p`, `holm`;
        - `mcnemar`: arm -> `gained`, `lost`, `p`, `holm`; or `None` where right or wrong is no question;
        - `said`: arm -> `yes_percent`, `no_percent`, `unknown_percent`; or `None` where that is no question;
        - `objects`: parser -> arm -> a list, most mentions first, of `object`, `mentions`, `answers`, `beside` (true
          objects of these images -> answers), `samples` (ids);
        - `warnings`: a list of `arm` (or `None`), `part` (or `None`) and `text`.

        In "mean" there are neither `mcnemar`, `said` nor `guard`: they are `None`.

    Raises:
        ValueError: no arms, a baseline that is none of them, ids that occur twice, no sample that all have answered,
            or a benchmark that does not count every answer alike.
    """
    if not answers or baseline not in (None, *answers):
        raise ValueError(f"the baseline {baseline!r} is none of the arms: {', '.join(answers) or 'there are none'}")
    baseline = next(iter(answers)) if baseline is None else baseline
    arms = [baseline, *(arm for arm in answers if arm != baseline)]
    paired, missing, unknown = _pair(samples, benchmark, {arm: answers[arm] for arm in arms}, baseline)
    parts = [_score_group(paired, group, benchmark, resamples, seed) for group in _groups(paired.samples)]
    summary = {
        "benchmark": benchmark.name,
        "baseline": baseline,
        "arms": arms,
        "resamples": resamples,
        "seed": seed,
        "level": LEVEL,
        "samples": len(samples),
        "paired": len(paired.samples),
        "images": len({sample.image for sample in paired.samples}),
        "missing": missing,
        "unknown": unknown,
        "parts": parts,
        "objects": _objects(paired),
    }
    return {**summary, "warnings": _warnings(summary)}


def repetition(text: str) -> float:
    """Share of the sequences of four words that were there before, 0-1.

    Example:
        >>> repetition("a cat and a dog"), repetition("a cat a cat a cat a cat a cat")
        (0.0, 0.7142857142857143)
    """
    words = text.lower().split()
    sequences = list(zip(*(words[start:] for start in range(SEQUENCE)), strict=False))
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def _pair(
    samples: Sequence[Sample], benchmark: Benchmark, answers: Mapping[str, Iterable[StoredAnswer]], baseline: str
) -> tuple[_Paired, dict[str, int], dict[str, int]]:
    ids = {sample.id for sample in samples}
    if len(ids) < len(samples):
        twice, _ = Counter(sample.id for sample in samples).most_common(1)[0]
        raise ValueError(f"the sample {twice!r} of {benchmark.name} occurs twice; ids must be unique")
    found: dict[str, dict[str, StoredAnswer]] = {arm: {} for arm in answers}
    unknown = dict.fromkeys(answers, 0)
    for arm, own in answers.items():
        for answer in own:
            if answer.id in ids:
                found[arm].setdefault(answer.id, answer)
            else:
                unknown[arm] += 1
    missing = {arm: len(samples) - len(own) for arm, own in found.items()}
    shared = [sample for sample in samples if all(sample.id in own for own in found.values())]
    if not shared:
        counts = ", ".join(f"{arm} {len(own)}" for arm, own in found.items())
        raise ValueError(
            f"no sample of {benchmark.name} is answered by every arm (answered: {counts}, of {len(samples)}); let the "
            "runs go on, or leave an arm out"
        )
    chosen = {arm: [own[sample.id] for sample in shared] for arm, own in found.items()}
    counted = {
        arm: [benchmark.count(sample, answer.text) for sample, answer in zip(shared, own, strict=True)]
        for arm, own in chosen.items()
    }
    return _Paired(shared, chosen, counted, baseline), missing, unknown


def _groups(samples: Sequence[Sample]) -> list[_Group]:
    parts: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        parts.setdefault(sample.part, []).append(row)
    groups = [_Group(part, "part", rows) for part, rows in parts.items()]
    everything = list(range(len(samples)))
    return groups + (
        [_Group("all", "pooled", everything), _Group("mean", "mean", everything)] if len(parts) > 1 else []
    )


def _score_group(paired: _Paired, group: _Group, benchmark: Benchmark, resamples: int, seed: int) -> dict[str, Any]:
    images = [paired.samples[row].image for row in group.rows]
    shared = [set(own[row]) for own in paired.counted.values() for row in group.rows]
    first = next(iter(paired.counted.values()))[group.rows[0]]
    parsers = {}
    for parser in [parser for parser in first if all(parser in own for own in shared)]:
        numbers = {arm: _numbers(paired, arm, parser, group.rows) for arm in paired.counted}
        metrics: Metrics = benchmark.metrics
        if group.kind == "mean":
            places = [paired.samples[row].part for row in group.rows]
            numbers = {arm: _by_part(own, places) for arm, own in numbers.items()}
            metrics = _mean_metrics(benchmark, list(dict.fromkeys(places)))
        found = bootstrap(images, numbers, metrics, baseline=paired.baseline, resamples=resamples, seed=seed)
        whole = group.kind != "mean"
        parsers[parser] = {
            "metrics": {
                metric: _metric_row(metric, found.values, found.differences) for metric in found.values[paired.baseline]
            },
            "mcnemar": _mcnemar_row(paired, parser, group.rows) if whole else None,
            "said": _said_row(paired, parser, group.rows) if whole else None,
        }
    if not parsers:
        raise ValueError(f"{benchmark.name} has no parser that counts every answer of {group.part!r}")
    return {
        "part": group.part,
        "kind": group.kind,
        "samples": len(group.rows),
        "images": len(set(images)),
        "parsers": parsers,
        "guard": None if group.kind == "mean" else _guard(paired, group.rows, next(iter(parsers.values()))["said"]),
    }


def _numbers(paired: _Paired, arm: str, parser: str, rows: list[int]) -> dict[str, np.ndarray]:
    own = paired.counted[arm]
    names = list(own[rows[0]][parser].numbers)
    try:
        table = [[own[row][parser].numbers[name] for name in names] for row in rows]
    except KeyError as error:
        raise ValueError(f"the parser {parser!r} does not count {error} for every answer of {arm!r}") from error
    return dict(zip(names, np.array(table, dtype=float).reshape(len(rows), len(names)).T, strict=True))


def _by_part(numbers: Mapping[str, np.ndarray], places: Sequence[str]) -> dict[str, np.ndarray]:
    """The same numbers, under a name for each part."""
    parts = np.array(places)
    return {
        f"{index} {name}": np.where(parts == part, column, 0.0)
        for index, part in enumerate(dict.fromkeys(places))
        for name, column in numbers.items()
    }


def _mean_metrics(benchmark: Benchmark, parts: Sequence[str]) -> Metrics:
    def mean(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = []
        for index in range(len(parts)):
            start = f"{index} "
            found.append(
                benchmark.metrics(
                    {name.removeprefix(start): own for name, own in sums.items() if name.startswith(start)}
                )
            )
        return {metric: np.mean([own[metric] for own in found], axis=0) for metric in found[0]}

    return mean


def _metric_row(
    metric: str, values: Mapping[str, Mapping[str, Estimate]], differences: Mapping[str, Mapping[str, Estimate]]
) -> dict[str, Any]:
    adjusted = dict(zip(differences, holm([own[metric].p for own in differences.values()]), strict=True))
    row: dict[str, Any] = {}
    for arm, own in values.items():
        row[arm] = {**_interval(own[metric]), "difference": None}
        if arm in differences:
            difference = differences[arm][metric]
            tests = {"p": _defined(difference.p), "holm": _defined(adjusted[arm])}
            row[arm]["difference"] = {**_interval(difference), **tests}
    return row


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _defined(getattr(estimate, name)) for name in ("value", "low", "high", "undefined")}


def _defined(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _mcnemar_row(paired: _Paired, parser: str, rows: list[int]) -> dict[str, Any] | None:
    right = {arm: [own[row][parser].correct for row in rows] for arm, own in paired.counted.items()}
    if any(value is None for own in right.values() for value in own):
        return None
    base = np.array(right.pop(paired.baseline), dtype=bool)
    tests = {arm: mcnemar(base, np.array(own, dtype=bool)) for arm, own in right.items()}
    adjusted = holm([test.p for test in tests.values()])
    return {arm: {**test._asdict(), "holm": p} for (arm, test), p in zip(tests.items(), adjusted, strict=True)}


def _said_row(paired: _Paired, parser: str, rows: list[int]) -> dict[str, Any] | None:
    words = ("yes", "no", "unknown")
    said = {arm: [own[row][parser].said for row in rows] for arm, own in paired.counted.items()}
    if any(not isinstance(word, str) or word not in words for own in said.values() for word in own):
        return None
    return {arm: {f"{word}_percent": 100 * own.count(word) / len(own) for word in words} for arm, own in said.items()}


def _guard(paired: _Paired, rows: list[int], said: Mapping[str, Any] | None) -> dict[str, Any]:
    base = [paired.answers[paired.baseline][row].text for row in rows]
    found = {}
    for arm, everything in paired.answers.items():
        own = [everything[row] for row in rows]
        told = [answer.activity for answer in own if answer.activity]
        found[arm] = {
            "words": _mean(len(answer.text.split()) for answer in own),
            "tokens": _mean(answer.tokens for answer in own),
            "seconds": _mean(answer.seconds for answer in own),
            "repetition_percent": 100 * _mean(repetition(answer.text) for answer in own),
            "empty_percent": 100 * _mean(not answer.text.strip() for answer in own),
            "at_limit_percent": 100 * _mean(answer.at_limit for answer in own),
            "yes_percent": said[arm]["yes_percent"] if said else None,
            "changed_percent": (
                None
                if arm == paired.baseline
                else 100 * _mean(answer.text != text for answer, text in zip(own, base, strict=True))
            ),
            "active_percent": 100 * sum(map(_active, told)) / len(own) if told else None,
        }
    return found


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return float(sum(values) / len(values))


def _active(activity: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a method did something; `None` for a change of words means a word was ruled out."""
    return any(one.get("heads") or one.get("word_change", 0) != 0 for one in activity)


def _objects(paired: _Paired) -> dict[str, dict[str, list[dict[str, Any]]]]:
    tables: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for arm, own in paired.counted.items():
        for sample, counts in zip(paired.samples, own, strict=True):
            for parser, counted in counts.items():
                table = tables.setdefault(parser, {}).setdefault(arm, {})
                for name, mentions in Counter(counted.invented).items():
                    empty = {"object": name, "mentions": 0, "answers": 0, "beside": Counter(), "samples": []}
                    row = table.setdefault(name, empty)
                    row["mentions"] += mentions
                    row["answers"] += 1
                    row["beside"].update(set(counted.true))
                    row["samples"].append(sample.id)
    return {
        parser: {
            arm: [
                {**row, "beside": dict(sorted(row["beside"].items(), key=lambda item: (-item[1], item[0])))}
                for row in sorted(table.values(), key=lambda row: (-row["mentions"], row["object"]))
            ]
            for arm, table in by_arm.items()
        }
        for parser, by_arm in tables.items()
    }


def _warnings(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
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
        if whole["guard"][arm]["active_percent"] == 0:
            warn(arm, None, "its methods did nothing in any answer: do their options fit the model?")
        elif whole["guard"][arm]["changed_percent"] == 0:
            warn(arm, None, "all answers are the baseline's, word for word: is it active?")
    for entry in summary["parts"]:
        if entry["kind"] != "part":
            continue
        if entry["images"] < FEW_IMAGES:
            warn(None, entry["part"], f"{entry['images']} images only: intervals are rough, and rather too narrow")
        for arm in rivals:
            for doubt in _doubts(entry, arm, summary["baseline"]):
                warn(arm, entry["part"], doubt)
    return found


def _doubts(entry: Mapping[str, Any], arm: str, baseline: str) -> list[str]:
    """What speaks against the gains of an arm in a part, by the first parser."""
    metrics = next(iter(entry["parsers"].values()))["metrics"]
    changes = {metric: row[arm]["difference"] for metric, row in metrics.items()}
    changes = {metric: change for metric, change in changes.items() if change["value"] is not None}
    headline = next(iter(metrics))
    found = []

    fallen = [name for name, change in changes.items() if _HALLUCINATION.match(name) and change["value"] < 0]
    reasons = _text_reasons(entry["guard"][arm], entry["guard"][baseline]) + [
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
    yes, base = entry["guard"][arm]["yes_percent"], entry["guard"][baseline]["yes_percent"]
    if gained and yes is not None and abs(yes - base) > MOVED["yes_percent"]:
        found.append(
            f"higher {', '.join(gained)}, but yes is said in {yes:.1f} % and not {base:.1f} % of the answers: a shift "
            "towards one answer does that, too"
        )
    return found


def _text_reasons(own: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
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
