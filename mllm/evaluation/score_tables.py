"""Score table of several arms on the same samples: metrics with intervals, paired differences and caveats.

Scores are made from sums by image (`regard.mllm.evaluation.aggregate`), so that the answers themselves are never held
together.

Sources: Rohrbach et al. 2018, arXiv:1809.02156 (CHAIR); Li et al. 2023, arXiv:2305.10355 (POPE and its yes ratio);
Wilson 1927, doi:10.1080/01621459.1927.10502953 (intervals of the shares of single objects).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from ...paired_statistics import LEVEL, Estimate, Metrics, compare, holm, mcnemar_from_counts, resample
from ..benchmarks.contract import Benchmark, Sample
from .aggregate import TEXT, Aggregate, Sums, aggregate_answers
from .answer_files import StoredAnswer
from .caveats import find_caveats

__all__ = ["score"]

#: Maximum number of sample ids per invented object.
EXAMPLES = 20
#: Maximum number of samples to show, and number of first samples that are always among them.
MAX_SHOWN, FIRST = 200, 8
_PARSED = ("yes", "no", "unknown")


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

    Images are resampled in each part (see `regard.paired_statistics.bootstrap`; images that share a group of samples
    form one cluster). Several parts are also scored together ("pooled": their sums are added) and by the mean of their
    metrics. Holm's correction is over the arms compared with the baseline, separately for each part, parser and metric.

    Args:
        samples: of the benchmark: a list, or `regard.mllm.evaluation.sample_file.SampleFile`.
        benchmark: its rules.
        answers: of each arm by name, such as `regard.mllm.evaluation.answer_files.read_answers` gives; the first one
            per id counts.
        baseline: the arm that others are compared with; the first one by default.
        resamples: number of resamples of images.
        seed: of the resamples.

    Returns:
        A summary in JSON types; undefined values are `None`. A *cell* has `value`, `low`, `high`, `undefined` (the
        fraction of resamples in which it is undefined), `difference`, which is `None` for the baseline, or `value`,
        `low`, `high`, `undefined`, `p`, `holm`.

        - `benchmark`, `baseline`, `arms` (names, the baseline first), `resamples`, `seed`, `level` (0.95);
        - `samples`, `paired`, `images` (counts), `missing` and `unknown` (arm -> count: samples without an answer,
          answers without a sample);
        - `parts`: a list of `part`, `kind` ("part", "pooled" or "mean"), `samples`, `images`,
          `parsers`: parser -> `metrics` (metric -> arm -> cell), `mcnemar`, `parsed`, and
          `text`: metric -> arm -> cell, for `words` and `tokens` (means), `repetition_percent` (n-grams of four words
          that occurred before), `empty_percent`, `at_limit_percent`, `changed_percent` (answers that differ from the
          baseline's), `active_percent` (answers in which an intervention changed something);
        - `mcnemar`: arm -> `gained`, `lost`, `p`, `holm`; or `None` where answers are not correct or wrong;
        - `parsed`: `yes_percent`, `no_percent`, `unknown_percent` -> arm -> cell; or `None` where not applicable;
        - `objects`: parser -> arm -> a list, most mentions first, of `object`, `mentions`, `answers`, `rate_percent`
          of all answers with `low` and `high` (Wilson's interval, which assumes independent answers), `cooccurring`
          (objects in these images -> answers), `samples` (ids of the first 20);
        - `activity`: arm -> a list of `intervention`, `answers`, `active` (counts), `rows`, `heads`, `moved`,
          `to_image` (means), `change`, `token_change` (largest; `None` where a token was excluded);
        - `discordant_samples`: ids of at most 200 samples to inspect, in order: those on which arms disagree or are
          wrong under the first parser, and the first 8;
        - `warnings`: a list of `arm` (or `None`), `part` (or `None`) and `text`, see `regard.mllm.evaluation.caveats`.

        In "mean", `mcnemar`, `parsed` and `text` are `None`.

    Raises:
        ValueError: no arms, a baseline that is not one of them, or what `aggregate_answers` raises.
    """
    if not answers or baseline not in (None, *answers):
        raise ValueError(f"the baseline {baseline!r} is not among the arms: {', '.join(answers) or 'there are none'}")
    found = aggregate_answers(samples, benchmark, answers, next(iter(answers)) if baseline is None else baseline)
    draws = _Draws(resamples, seed)
    parts = [_part(found, benchmark, draws, name) for name in found.parts]
    if len(parts) > 1:
        parts += [_pooled(found, benchmark, draws), _mean(found, benchmark, draws)]
    summary = {
        "benchmark": benchmark.name,
        "baseline": found.arms[0],
        "arms": found.arms,
        "resamples": resamples,
        "seed": seed,
        "level": LEVEL,
        "samples": found.samples,
        "paired": int(found.paired.sum()),
        "images": len(_all_clusters(found)),
        "missing": found.missing,
        "unknown": found.unknown,
        "parts": parts,
        "objects": _objects(found, samples),
        "activity": {arm: _activity(found.activity[arm]) for arm in found.arms},
        "discordant_samples": [samples[row].id for row in _rows_to_show(found)],
    }
    return {**summary, "warnings": find_caveats(summary)}


class _Draws:
    """Draws resamples of one part for all its parsers at once: the same weights for all columns."""

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples, self.seed = resamples, seed

    def of(self, tables: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """For each table, arm -> sums of clusters: arm -> sums of resamples."""
        columns = [own for table in tables for own in table.values()]
        drawn = resample(np.concatenate(columns, axis=1), self.resamples, self.seed)
        ends = np.cumsum([own.shape[1] for own in columns])[:-1]
        pieces = iter(np.split(drawn, ends, axis=1))
        return [{arm: next(pieces) for arm in table} for table in tables]


def _part(found: Aggregate, benchmark: Benchmark, draws: _Draws, name: str) -> dict[str, Any]:
    parsers = {parser: _with_parsed([sums])[0] for parser, sums in found.sums[name].items()}
    return {
        "part": name,
        "kind": "part",
        "samples": found.sizes[name],
        "images": found.images[name],
        **_scored(found, benchmark, draws, parsers, found.text[name], [found.sums[name]]),
    }


def _pooled(found: Aggregate, benchmark: Benchmark, draws: _Draws) -> dict[str, Any]:
    """All parts together: their sums are added per image."""
    clusters = _all_clusters(found)
    shared = _shared_parsers(found)

    def together(tables: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        added = {arm: np.zeros((len(clusters), own.shape[1])) for arm, own in next(iter(tables.values())).items()}
        for part, table in tables.items():
            at = np.searchsorted(clusters, found.parts[part])
            for arm, own in table.items():
                added[arm][at] += own
        return added

    parsers = {
        parser: together(
            dict(zip(found.parts, _with_parsed([found.sums[part][parser] for part in found.parts]), strict=True))
        )
        for parser in shared
    }
    return {
        "part": "all",
        "kind": "pooled",
        "samples": int(found.paired.sum()),
        "images": len(clusters),
        **_scored(found, benchmark, draws, parsers, together(found.text), list(found.sums.values())),
    }


def _mean(found: Aggregate, benchmark: Benchmark, draws: _Draws) -> dict[str, Any]:
    """The mean of the metrics of the parts."""
    clusters = _all_clusters(found)
    shared = _shared_parsers(found)
    names = {parser: next(iter(found.sums.values()))[parser].names for parser in shared}
    tables: dict[str, dict[str, np.ndarray]] = {}
    for parser in shared:
        width = len(names[parser])
        tables[parser] = {arm: np.zeros((len(clusters), width * len(found.parts))) for arm in found.arms}
        for position, (part, own) in enumerate(found.parts.items()):
            at = np.searchsorted(clusters, own)
            for arm in found.arms:
                tables[parser][arm][at, position * width : (position + 1) * width] = found.sums[part][parser].by_arm[
                    arm
                ]
    drawn = dict(zip(tables, draws.of(list(tables.values())), strict=True))
    parsers = {
        parser: {
            "metrics": _cells(found, tables[parser], drawn[parser], *_mean_metrics(benchmark, names[parser], found)),
            "mcnemar": None,
            "parsed": None,
        }
        for parser in shared
    }
    counts = {"samples": int(found.paired.sum()), "images": len(clusters)}
    return {"part": "mean", "kind": "mean", **counts, "parsers": parsers, "text": None}


def _mean_metrics(benchmark: Benchmark, names: Sequence[str], found: Aggregate) -> tuple[list[str], Metrics]:
    columns = [f"{part} {name}" for part in range(len(found.parts)) for name in names]

    def mean(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        own = [benchmark.metrics({name: sums[f"{part} {name}"] for name in names}) for part in range(len(found.parts))]
        return {metric: np.mean([one[metric] for one in own], axis=0) for metric in own[0]}

    return columns, mean


def _scored(
    found: Aggregate,
    benchmark: Benchmark,
    draws: _Draws,
    tables: Mapping[str, Mapping[str, Float[np.ndarray, "clusters _"]]],
    text: Mapping[str, Float[np.ndarray, "clusters numbers"]],
    parts: Sequence[Mapping[str, Sums]],
) -> dict[str, Any]:
    """Cells of all parsers and of the text; the last columns of `tables` are the counts of yes, no and unknown."""
    *drawn, drawn_text = draws.of([*tables.values(), text])
    parsers = {}
    for (parser, table), own in zip(tables.items(), drawn, strict=True):
        sums = [part[parser] for part in parts]
        names = sums[0].names
        whole, pieces = ({arm: one[:, : len(names)] for arm, one in both.items()} for both in (table, own))
        parsed = None
        if all(one.parsed is not None for one in sums):
            counts, drawn_counts = ({arm: one[:, len(names) :] for arm, one in both.items()} for both in (table, own))
            parsed = _cells(found, counts, drawn_counts, _PARSED, _parsed_metrics)
        parsers[parser] = {
            "metrics": _cells(found, whole, pieces, names, benchmark.metrics),
            "mcnemar": _mcnemar(found, sums),
            "parsed": parsed,
        }
    return {"parsers": parsers, "text": _cells(found, text, drawn_text, TEXT, _text_metrics)}


def _with_parsed(parts: Sequence[Sums]) -> list[dict[str, np.ndarray]]:
    """Sums of parts, followed by the counts of yes, no and unknown if all parts have them."""
    if any(sums.parsed is None for sums in parts):
        return [sums.by_arm for sums in parts]
    return [
        {arm: np.concatenate([own, sums.parsed[arm]], axis=1) for arm, own in sums.by_arm.items()}  # type: ignore[index]
        for sums in parts
    ]


def _shared_parsers(found: Aggregate) -> list[str]:
    first, *others = found.sums.values()
    return [parser for parser in first if all(parser in other for other in others)]


def _all_clusters(found: Aggregate) -> np.ndarray:
    return np.unique(np.concatenate(list(found.parts.values())))


def _parsed_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    whole = sum(sums[word] for word in _PARSED)
    return {f"{word}_percent": 100 * sums[word] / whole for word in _PARSED}


def _text_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    answers = sums["answers"]
    return {
        "words": sums["words"] / answers,
        "tokens": sums["tokens"] / answers,
        "repetition_percent": np.where(sums["ngrams"] > 0, 100 * sums["repeated"] / np.maximum(sums["ngrams"], 1), 0.0),
        "empty_percent": 100 * sums["empty"] / answers,
        "at_limit_percent": 100 * sums["at_limit"] / answers,
        "changed_percent": 100 * sums["changed"] / answers,
        "active_percent": np.where(sums["recorded"] > 0, 100 * sums["active"] / answers, np.nan),
    }


def _cells(
    found: Aggregate,
    sums: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    names: Sequence[str],
    metrics: Metrics,
) -> dict[str, dict[str, Any]]:
    """Metric -> arm -> cell."""
    values, differences = compare(sums, drawn, names, metrics, found.arms[0])
    cells: dict[str, dict[str, Any]] = {}
    for metric in values[found.arms[0]]:
        adjusted = dict(zip(differences, holm([own[metric].p for own in differences.values()]), strict=True))
        cells[metric] = {}
        for arm, own in values.items():
            cells[metric][arm] = {**_interval(own[metric]), "difference": None}
            if arm in differences:
                difference = differences[arm][metric]
                tests = {"p": _defined(difference.p), "holm": _defined(adjusted[arm])}
                cells[metric][arm]["difference"] = {**_interval(difference), **tests}
    return cells


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _defined(getattr(estimate, name)) for name in ("value", "low", "high", "undefined")}


def _defined(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _mcnemar(found: Aggregate, sums: Sequence[Sums]) -> dict[str, Any] | None:
    if not all(one.judged for one in sums):
        return None
    tests = {
        arm: mcnemar_from_counts(sum(one.gained[arm] for one in sums), sum(one.lost[arm] for one in sums))
        for arm in found.arms[1:]
    }
    adjusted = holm([test.p for test in tests.values()])
    return {arm: {**test._asdict(), "holm": p} for (arm, test), p in zip(tests.items(), adjusted, strict=True)}


def _objects(found: Aggregate, samples: Sequence[Sample]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    answers = int(found.paired.sum())

    def row(name: str, own: Any) -> dict[str, Any]:
        low, high = _wilson(len(own.rows), answers)
        return {
            "object": name,
            "mentions": own.mentions,
            "answers": len(own.rows),
            "rate_percent": 100 * len(own.rows) / answers,
            "low": 100 * low,
            "high": 100 * high,
            "cooccurring": dict(sorted(own.cooccurring.items(), key=lambda item: (-item[1], item[0]))),
            "samples": [samples[index].id for index in sorted(own.rows)[:EXAMPLES]],
        }

    return {
        parser: {
            arm: [
                row(name, own)
                for name, own in sorted(by_arm.get(arm, {}).items(), key=lambda item: (-item[1].mentions, item[0]))
            ]
            for arm in found.arms
        }
        for parser, by_arm in found.objects.items()
    }


def _rows_to_show(found: Aggregate) -> list[int]:
    rows = np.flatnonzero(found.paired)
    weight = found.discordance[rows].astype(float)
    weight[:FIRST] = np.inf
    return sorted(rows[np.argsort(-weight, kind="stable")[:MAX_SHOWN]].tolist())


def _wilson(hits: int, of: int) -> tuple[float, float]:
    z = float(ndtri((1 + LEVEL) / 2))
    middle, scale = (hits + z * z / 2) / (of + z * z), 1 / (1 + z * z / of)
    width = scale * z * math.sqrt(hits / of * (1 - hits / of) / of + z * z / (4 * of * of))
    return max(0.0, middle - width), min(1.0, middle + width)


def _activity(interventions: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    rows = []
    for intervention, table in interventions.items():
        columns = {name: np.asarray(values, dtype=float) for name, values in table.items()}
        recorded = ~np.isnan(columns["active"])
        own = {name: values[recorded] for name, values in columns.items()}
        means = {name: _defined(float(own[name].mean())) for name in ("rows", "heads", "moved", "to_image")}
        largest = {name: _defined(float(own[name].max())) for name in ("change", "token_change")}
        counts = {"answers": int(recorded.sum()), "active": int(own["active"].sum())}
        rows.append({"intervention": intervention, **counts, **means, **largest})
    return rows
