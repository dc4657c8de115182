"""Per-image statistics of the answers of several arms, from which scores, intervals and tests are computed.

Answers are read one by one and no text is kept. Memory per sample is an index entry and a few bytes; memory per image
is one row of sums for each arm and parser.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..benchmarks.clusters import clusters
from ..benchmarks.contract import Benchmark, Counted, Sample
from .answer_files import StoredAnswer

__all__ = ["TEXT", "Aggregate", "Invented", "Sums", "aggregate_answers"]

#: Numbers that the text and the activity of an answer contribute.
TEXT = ("answers", "words", "tokens", "ngrams", "repeated", "empty", "at_limit", "changed", "active", "recorded")
#: Length, in words, of the n-grams in which repetition is counted.
NGRAM = 4
_PARSED = ("yes", "no", "unknown")
_ACTIVITY = ("active", "rows", "heads", "moved", "to_image", "change", "token_change")
_BLOCK = 4096


@dataclass
class Sums:
    """Sums of one part under one parser.

    Attributes:
        names: of the columns.
        by_arm: arm -> sums of each cluster of the part.
        parsed: arm -> number of answers yes, no and unknown in each cluster; `None` if not applicable.
        gained: arm -> number of samples that only it answers correctly, and not the baseline.
        lost: arm -> number of samples that only the baseline answers correctly.
        judged: whether every answer is correct or wrong.
        answers: number of answers of all arms.
    """

    names: list[str]
    by_arm: dict[str, Float[np.ndarray, "clusters names"]]
    parsed: dict[str, Float[np.ndarray, "clusters 3"]] | None
    gained: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    judged: bool = True
    answers: int = 0


@dataclass
class Invented:
    """An object that answers mention although it is not in the image.

    Attributes:
        mentions: number of them.
        rows: indices of the samples.
        cooccurring: object in the image -> number of answers that invent this one.
    """

    mentions: int = 0
    rows: array[int] = field(default_factory=lambda: array("q"))
    cooccurring: Counter[str] = field(default_factory=Counter)


@dataclass
class Aggregate:
    """The per-image statistics of all arms.

    Attributes:
        arms: their names, the baseline first.
        samples: number of samples.
        paired: samples that every arm has answered.
        missing: arm -> number of samples without an answer.
        unknown: arm -> number of answers whose id is not a sample.
        parts: part -> indices of its clusters among all clusters.
        sizes: part -> number of its paired samples.
        images: part -> number of its images.
        sums: part -> parser -> sums.
        text: part -> arm -> sums of `TEXT` of each cluster.
        objects: parser -> arm -> object -> its inventions.
        activity: arm -> intervention -> `_ACTIVITY` of every answer, by index of its sample; nan if not recorded.
        discordance: per sample, how much arms disagree or are wrong under the first parser.
    """

    arms: list[str]
    samples: int
    paired: Bool[np.ndarray, " samples"]
    missing: dict[str, int]
    unknown: dict[str, int]
    parts: dict[str, Int[np.ndarray, " clusters"]]
    sizes: dict[str, int]
    images: dict[str, int]
    sums: dict[str, dict[str, Sums]]
    text: dict[str, dict[str, Float[np.ndarray, "clusters numbers"]]]
    objects: dict[str, dict[str, dict[str, Invented]]]
    activity: dict[str, dict[str, dict[str, array[float]]]]
    discordance: Int[np.ndarray, " samples"]


@dataclass
class _Index:
    """Parts, clusters and groups of the samples, by index."""

    rows: dict[str, int]
    part: Int[np.ndarray, " samples"]
    cluster: Int[np.ndarray, " samples"]
    parts: list[str]
    groups: dict[int, list[tuple[str, int]]]
    kinds: list[str]


def aggregate_answers(
    samples: Sequence[Sample], benchmark: Benchmark, answers: Mapping[str, Iterable[StoredAnswer]], baseline: str
) -> Aggregate:
    """Read all answers and sum up their contributions.

    Args:
        samples: of the benchmark; accessed by index, so that they can stay on disk.
        benchmark: its rules.
        answers: arm -> answers, iterated over twice; the first one per id counts.
        baseline: the arm that others are compared with.

    Raises:
        ValueError: duplicate ids, no sample that all arms have answered, a group whose answers are neither correct nor
            wrong, or a benchmark whose numbers differ between answers.
    """
    index = _index(samples, benchmark.name)
    arms = [baseline, *(arm for arm in answers if arm != baseline)]
    have, unknown = {arm: np.zeros(len(samples), bool) for arm in arms}, dict.fromkeys(arms, 0)
    for arm in arms:
        for answer in answers[arm]:
            row = index.rows.get(answer.id)
            if row is None:
                unknown[arm] += 1
            else:
                have[arm][row] = True
    paired = np.logical_and.reduce(list(have.values()))
    if not paired.any():
        counts = ", ".join(f"{arm} {own.sum()}" for arm, own in have.items())
        raise ValueError(
            f"no sample of {benchmark.name} is answered by every arm (answered: {counts}, of {len(samples)}); resume "
            "the runs, or leave an arm out"
        )
    cluster_indices = [np.unique(index.cluster[paired & (index.part == part)]) for part in range(len(index.parts))]
    parts = {name: own for name, own in zip(index.parts, cluster_indices, strict=True) if len(own)}
    found = Aggregate(
        arms=arms,
        samples=len(samples),
        paired=paired,
        missing={arm: len(samples) - int(own.sum()) for arm, own in have.items()},
        unknown=unknown,
        parts=parts,
        sizes={name: int((paired & (index.part == index.parts.index(name))).sum()) for name in parts},
        images=dict.fromkeys(parts, 0),
        sums={name: {} for name in parts},
        text={name: {arm: np.zeros((len(own), len(TEXT))) for arm in arms} for name, own in parts.items()},
        objects={},
        activity={arm: {} for arm in arms},
        discordance=np.zeros(len(samples), np.int32),
    )
    image_names: dict[str, set[str]] = {name: set() for name in parts}
    base = _Baseline(len(samples))
    for arm in arms:
        _count_arm(found, index, samples, benchmark, arm, answers[arm], base, image_names if arm == baseline else None)
    found.images = {name: len(own) for name, own in image_names.items()}
    _check_even(found, benchmark.name)
    return found


class _Baseline:
    """Hashes of the baseline's texts and whether they are correct under each parser, a few bytes per sample."""

    def __init__(self, samples: int) -> None:
        self.texts, self.verdicts = np.zeros(samples, np.int64), np.zeros(samples, np.int64)
        self.correct: dict[str, bytearray] = {}
        self.samples = samples

    def mark(self, parser: str, row: int, correct: bool) -> None:
        self.correct.setdefault(parser, bytearray(self.samples))[row] = correct


def _index(samples: Sequence[Sample], name: str) -> _Index:
    rows: dict[str, int] = {}
    parts: dict[str, int] = {}
    part = np.zeros(len(samples), np.int32)
    known: dict[tuple[str, str], int] = {}
    groups: dict[int, list[tuple[str, int]]] = {}
    for row, sample in enumerate(samples):
        if rows.setdefault(sample.id, row) != row:
            raise ValueError(f"the sample {sample.id!r} of {name} occurs twice; ids must be unique")
        part[row] = parts.setdefault(sample.part, len(parts))
        if sample.groups:
            groups[row] = [(kind, known.setdefault((kind, one), len(known))) for kind, one in sample.groups.items()]
    cluster = np.array(clusters(samples), np.int64)
    return _Index(rows, part, cluster, list(parts), groups, list(dict.fromkeys(kind for kind, _ in known)))


def _count_arm(
    found: Aggregate,
    index: _Index,
    samples: Sequence[Sample],
    benchmark: Benchmark,
    arm: str,
    answers: Iterable[StoredAnswer],
    base: _Baseline,
    image_names: dict[str, set[str]] | None,
) -> None:
    """Add one arm. The baseline comes first, and fills `base`."""
    left = found.paired.copy()
    blocks: dict[tuple[str, str | None], tuple[list[int], list[list[float]], list[list[float]]]] = {}
    together: dict[tuple[str, str, int], list[int]] = {}
    for answer in answers:
        row = index.rows.get(answer.id)
        if row is None or not left[row]:
            continue
        left[row] = False
        sample = samples[row]
        if image_names is not None:
            base.texts[row] = hash(answer.text)
            image_names[sample.part].update([sample.image] if sample.image else [])
        text = _text_numbers(answer, None if image_names is not None else bool(hash(answer.text) != base.texts[row]))
        _add(found, blocks, index, (sample.part, None), row, arm, text, [])
        _note_activity(found.activity[arm], answer, row, len(samples))
        for number, (parser, counted) in enumerate(benchmark.count(sample, answer.text).items()):
            if number == 0:
                found.discordance[row] += _discordance_of(base, row, counted, first=image_names is not None)
            sums = _sums_of(found, sample.part, parser, counted, index.kinds)
            try:
                own = [counted.numbers[name] for name in sums.names[: len(counted.numbers)]]
            except KeyError:
                own = []
            if len(own) + 2 * len(index.kinds) != len(sums.names):
                lacking = sorted(set(sums.names) ^ set(counted.numbers))[0]
                raise ValueError(f"the parser {parser!r} does not count {lacking!r} for every answer of {arm!r}")
            parsed = _parsed(sums, counted)
            _add(found, blocks, index, (sample.part, parser), row, arm, [*own, *[0.0] * (2 * len(index.kinds))], parsed)
            _compare(sums, base, parser, row, arm, counted.correct, first=image_names is not None)
            for kind, group in index.groups.get(row, ()):
                if counted.correct is None:
                    raise ValueError(f"the group of {sample.id!r} has answers that are neither correct nor wrong")
                state = together.setdefault((parser, kind, group), [row, 1])
                state[:] = min(state[0], row), state[1] & counted.correct
            _note_invented(found.objects.setdefault(parser, {}).setdefault(arm, {}), counted, sample, row)
    for key in list(blocks):
        _flush(found, blocks, key, arm)
    for (parser, kind, _), (row, correct) in together.items():  # a group belongs to its first answer
        name = index.parts[index.part[row]]
        sums = found.sums[name][parser]
        cluster = np.searchsorted(found.parts[name], index.cluster[row])
        sums.by_arm[arm][cluster, sums.names.index(f"{kind}_groups")] += 1
        sums.by_arm[arm][cluster, sums.names.index(f"{kind}_groups_right")] += correct


def _discordance_of(base: _Baseline, row: int, counted: Counted, *, first: bool) -> int:
    verdict = hash((counted.correct, tuple(counted.invented)))
    if first:
        base.verdicts[row] = verdict
    wrong = bool(counted.invented) or counted.correct is False
    return 2 * bool(base.verdicts[row] != verdict) + wrong


def _sums_of(found: Aggregate, part: str, parser: str, counted: Counted, kinds: Sequence[str]) -> Sums:
    sums = found.sums[part].get(parser)
    if sums is None:
        names = [*counted.numbers, *(f"{kind}_groups{end}" for kind in kinds for end in ("", "_right"))]
        size = len(found.parts[part])
        sums = found.sums[part][parser] = Sums(
            names=names,
            by_arm={arm: np.zeros((size, len(names))) for arm in found.arms},
            parsed={arm: np.zeros((size, len(_PARSED))) for arm in found.arms},
        )
    return sums


def _parsed(sums: Sums, counted: Counted) -> list[float]:
    sums.answers += 1
    if counted.parsed not in _PARSED:
        sums.parsed = None
        return []
    return [float(counted.parsed == word) for word in _PARSED]


def _compare(
    sums: Sums, base: _Baseline, parser: str, row: int, arm: str, correct: bool | None, *, first: bool
) -> None:
    if correct is None:
        sums.judged = False
    elif first:
        base.mark(parser, row, correct)
    elif parser in base.correct and correct != base.correct[parser][row]:
        (sums.gained if correct else sums.lost)[arm] += 1


def _add(
    found: Aggregate,
    blocks: dict[tuple[str, str | None], tuple[list[int], list[list[float]], list[list[float]]]],
    index: _Index,
    key: tuple[str, str | None],
    row: int,
    arm: str,
    numbers: list[float],
    parsed: list[float],
) -> None:
    """Collect numbers and add them in blocks."""
    cluster, table, parsed_table = blocks.setdefault(key, ([], [], []))
    cluster.append(int(index.cluster[row]))
    table.append(numbers)
    parsed_table.append(parsed)
    if len(cluster) == _BLOCK:
        _flush(found, blocks, key, arm)


def _flush(found: Aggregate, blocks: dict[Any, Any], key: tuple[str, str | None], arm: str) -> None:
    cluster, table, parsed_table = blocks.pop(key)
    part, parser = key
    at = np.searchsorted(found.parts[part], cluster)
    target = found.text[part][arm] if parser is None else found.sums[part][parser].by_arm[arm]
    np.add.at(target, at, np.array(table))
    parsed = None if parser is None else found.sums[part][parser].parsed
    if parsed is not None and target.shape[1]:
        np.add.at(parsed[arm], at, np.array(parsed_table))


def _text_numbers(answer: StoredAnswer, changed: bool | None) -> list[float]:
    """`TEXT` of one answer; `changed` is `None` for the baseline."""
    words = answer.text.lower().split()
    ngrams = list(zip(*(words[start:] for start in range(NGRAM)), strict=False))
    return [
        1.0,
        float(len(words)),
        float(answer.tokens),
        float(len(ngrams)),
        float(len(ngrams) - len(set(ngrams))),
        float(not words),
        float(answer.at_limit),
        float("nan") if changed is None else float(changed),
        float(any(map(_active, answer.activity))),
        float(bool(answer.activity)),
    ]


def _active(one: Mapping[str, Any]) -> bool:
    """Whether an intervention changed something; a `token_change` of `None` means that it excluded a token."""
    return bool(one.get("heads")) or one.get("token_change", 0) != 0


def _note_activity(known: dict[str, dict[str, array[float]]], answer: StoredAnswer, row: int, samples: int) -> None:
    for one in answer.activity:
        intervention = str(one.get("intervention", ""))
        if intervention not in known:
            known[intervention] = {name: array("d", [float("nan")]) * samples for name in _ACTIVITY}
        table = known[intervention]
        table["active"][row] = float(_active(one))
        for name in _ACTIVITY[1:]:
            value = one.get(name)
            table[name][row] = float("nan") if value is None else float(value)


def _note_invented(table: dict[str, Invented], counted: Counted, sample: Sample, row: int) -> None:
    for name, mentions in Counter(counted.invented).items():
        own = table.setdefault(name, Invented())
        own.mentions += mentions
        own.rows.append(row)
        own.cooccurring.update(set(counted.true or sample.present))


def _check_even(found: Aggregate, name: str) -> None:
    """Drop parsers that count only some answers of a part."""
    for part, by_parser in found.sums.items():
        whole = found.sizes[part] * len(found.arms)
        for parser in [parser for parser, sums in by_parser.items() if sums.answers < whole]:
            del by_parser[parser]
        if not by_parser:
            raise ValueError(f"{name} has no parser that counts every answer of {part!r}")
