"""Benchmarks of hallucination: one a file, and the table of their names.

Every benchmark keeps the contract in `regard.mllm.benchmarks.contract`.
"""

from .contract import Benchmark, Counted, Sample

__all__ = ["Benchmark", "Counted", "Sample"]
