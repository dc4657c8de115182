"""Benchmarks by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from regard.mllm.benchmarks import BENCHMARKS, Benchmark, benchmark_class


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_name_of_the_table_is_a_benchmark_of_that_name(name: str) -> None:
    benchmark = benchmark_class(name)()
    assert isinstance(benchmark, Benchmark)
    assert benchmark.name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("poppe", "did you mean 'pope'[?] Known: pope, chair"),
        ("zzz", "no benchmark is called 'zzz'; Known: pope"),
        ("json:Nothing", "cannot import the benchmark 'json:Nothing'"),
        ("no.such.module:Class", "cannot import the benchmark"),
    ],
)
def test_an_unknown_name_is_an_error_that_helps(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark_class(name)


def test_a_custom_benchmark_is_found_by_its_import_path() -> None:
    assert benchmark_class("regard.mllm.benchmarks.pope:POPE") is benchmark_class("pope")


def test_scoring_loads_no_torch() -> None:
    code = (
        "import sys; from regard.mllm.benchmarks import BENCHMARKS, benchmark_class; "
        "[benchmark_class(name) for name in BENCHMARKS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
