"""Benchmarks of hallucination, one per file, and the table of their names.

Every benchmark follows the contract in `regard.mllm.benchmarks.contract`. A benchmark of your own is named
`package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...class_names import class_named
from ..option_grammar import build
from .contract import Benchmark, Counted, Sample

__all__ = ["BENCHMARKS", "Benchmark", "Counted", "Sample", "benchmark_class", "build_benchmark"]

#: Name (the same in YAML, command line, code and documentation) -> file and class in this folder.
BENCHMARKS: dict[str, str] = {
    "pope": "pope:POPE",
    "chair": "chair:CHAIR",
    "mme": "mme:MME",
    "amber": "amber:AMBER",
    "hallusionbench": "hallusionbench:HallusionBench",
    "mmhal": "mmhal:MMHal",
    "captioning": "captioning:Captioning",
}


def benchmark_class(name: str) -> type[Any]:
    """The class of a benchmark by its name.

    Args:
        name: a key of `BENCHMARKS`, or `package.module:Class` for a benchmark of your own.

    Raises:
        ValueError: no benchmark has that name; the nearest one is suggested.

    Example:
        >>> benchmark_class("pope").__name__
        'POPE'
    """
    return class_named(name, "benchmark", BENCHMARKS, __package__)


def build_benchmark(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """A benchmark from its name and options.

    Args:
        name: as in `benchmark_class`.
        options: name -> value; the others have their defaults.

    Raises:
        ValueError: no such benchmark or option, or a value of the wrong type or out of range.

    Example:
        >>> build_benchmark("pope", {"parser": "words"}).parser
        'words'
    """
    return build(benchmark_class(name), f"benchmark {name}", options or {})
