"""Metrics of all answers together, as the table of arms has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from regard.mllm.benchmarks import Benchmark, Sample
from regard.mllm.evaluation.answer_files import StoredAnswer
from regard.mllm.evaluation.score_tables import score

__all__ = ["totals"]


def totals(benchmark: Benchmark, samples: Sequence[Sample], answers: Sequence[str], parser: str) -> dict[str, float]:
    """Metric -> value, nan where it is not defined."""
    pairs = zip(samples, answers, strict=True)
    stored = [StoredAnswer(id=sample.id, text=text, tokens=1, at_limit=False) for sample, text in pairs]
    parts = score(samples, benchmark, {"only": stored}, resamples=1)["parts"]
    whole = next((part for part in parts if part["kind"] == "pooled"), parts[0])
    cells = whole["parsers"][parser]["metrics"]
    return {name: math.nan if cell["only"]["value"] is None else cell["only"]["value"] for name, cell in cells.items()}
