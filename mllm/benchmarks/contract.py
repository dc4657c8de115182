"""What a benchmark is: questions about images with known truth, and how answers to them are counted.

Scores are ratios of sums: every answer contributes some numbers (a true positive, three mentions of objects), these are
summed, and a metric is a function of the sums. So any set of answers can be scored, resampled by image, merged from
shards and scored again without a model.

A benchmark is a frozen dataclass of options with a `name`, and three methods: `samples`, `count` and `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["Benchmark", "Counted", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question.

    Attributes:
        id: unique within the benchmark.
        image: file of the image, relative to the folder of images; empty for a question without one.
        question: what is asked, as the published file has it.
        truth: what is known of the image, in JSON's types.
        part: the split or subtask that is scored for itself, e.g. "adversarial".
        groups: kind -> name of a group of questions that counts as right when all of its answers are, e.g. the two
            about one image of MME; `regard.mllm.evaluation.aggregate` counts them.
        present: objects that are known to be in the image, for the table of what is invented beside what.
    """

    id: str
    image: str
    question: str
    truth: Any = None
    part: str = "all"
    groups: Mapping[str, str] = field(default_factory=dict)
    present: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one answer contributes.

    Attributes:
        numbers: name -> number, summed over answers; the same names for every answer of a benchmark.
        correct: whether the answer is right, for paired tests; `None` where that is no question.
        parsed: what the parser made of it: yes, no, unknown; or the objects that it names.
        invented: objects that it names and that are not there.
        true: objects that are there; by default those of the sample.
    """

    numbers: Mapping[str, float]
    correct: bool | None = None
    parsed: str | Sequence[str] = ""
    invented: Sequence[str] = ()
    true: Sequence[str] = ()


@runtime_checkable
class Benchmark(Protocol):
    """A set of questions and its rules."""

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        ...

    def samples(self, data: Path) -> list[Sample]:
        """Read the questions from the files that are published for them.

        Raises:
            ValueError: the folder has none of them, or they are damaged; says what is expected and where.
        """
        ...

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """What an answer contributes, under every parser or mode of the benchmark by name, the published one first."""
        ...

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Metrics from sums, elementwise over arrays (one element a resample); nan where one is not defined.

        The first is the headline. Names that end in `_percent` are percentages.
        """
        ...
