"""Benchmarks of hallucination: one a file, and the table of their names.

Every benchmark keeps the contract in `regard.mllm.benchmarks.contract`. A benchmark of your own is named
`package.module:Class`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from .contract import Benchmark, Counted, Sample

__all__ = ["BENCHMARKS", "Benchmark", "Counted", "Sample", "benchmark_class"]

#: Name of a benchmark (the same in YAML, command line, code and documents) -> file and class in this folder.
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
    place = f"{__package__}.{BENCHMARKS[name]}" if name in BENCHMARKS else name
    module, colon, attribute = place.partition(":")
    if colon:
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"cannot import the benchmark {name!r}: {error}") from error
    near = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1, cutoff=0.5)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(BENCHMARKS)
    raise ValueError(f"no benchmark is called {name!r}; {suggestion}Known: {known}, or package.module:Class")
