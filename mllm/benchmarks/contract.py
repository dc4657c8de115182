"""The contract of a benchmark: samples with known truth, and how answers to them are counted.

Scores are ratios of sums: every answer contributes numbers (a true positive, three mentions of objects), these are
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
    """One question about an image.

    Attributes:
        id: unique within the benchmark.
        image: image file, relative to the image folder; empty for a question without an image.
        question: as in the published file.
        truth: the annotation, in JSON types.
        part: the split or subtask that is scored separately, e.g. "adversarial".
        groups: kind -> name of a group of samples that counts as correct if all its answers are, e.g. the two
            about one image of MME; `regard.mllm.evaluation.aggregate` counts them.
        present: objects that are known to be in the image, for the table of invented objects.
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
    """Contribution of one answer.

    Attributes:
        numbers: name -> number, summed over answers; the same names for every answer of a benchmark.
        correct: whether the answer is correct, for paired tests; `None` if not applicable.
        parsed: result of the parser: yes, no, unknown; or the mentioned objects.
        invented: mentioned objects that are not in the image.
        true: objects in the image; by default those of the sample.
    """

    numbers: Mapping[str, float]
    correct: bool | None = None
    parsed: str | Sequence[str] = ""
    invented: Sequence[str] = ()
    true: Sequence[str] = ()


@runtime_checkable
class Benchmark(Protocol):
    """Samples and the rules to score answers."""

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        ...

    def samples(self, data: Path) -> list[Sample]:
        """Read the samples from the published files.

        Raises:
            ValueError: files are missing or damaged; the message names the expected files.
        """
        ...

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """Parser or mode -> contribution of an answer, the published one first."""
        ...

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Metrics from sums, elementwise over arrays (one element per resample); nan if undefined.

        The first is the headline. Names that end in `_percent` are percentages.
        """
        ...
