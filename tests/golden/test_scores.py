"""POPE and CHAIR count as the authors' own scripts did, to the last digit.

`--golden DIR` reads pope_*.json and chair_*.json in DIR/mllm, or in DIR itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regard.mllm.benchmarks.pope import score_in_order

HERE = Path(__file__).parent
SCORERS = {"official": "official", "vcd_script": "vcd", "lmms_eval": "lmms_eval"}


def score_files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.json")) or sorted(folder.glob(f"*/{kind}_*.json"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in ("pope", "chair"):
        if f"{kind}_case" in metafunc.fixturenames:
            folder = Path(metafunc.config.getoption("--golden") or HERE).resolve()
            files = score_files(folder, kind)
            if not files:  # another area's folder
                missing = pytest.param(None, marks=pytest.mark.skip(f"no {kind}_*.json in {folder}"))
                metafunc.parametrize(f"{kind}_case", [missing])
                continue
            cases = [json.loads(path.read_text("utf-8")) for path in files]
            metafunc.parametrize(f"{kind}_case", cases, ids=[path.stem for path in files])


def test_pope_counts_as_the_published_scripts_do(pope_case: dict[str, Any]) -> None:
    labels = [question["label"] for question in pope_case["questions"]]
    known = [scorer for scorer in SCORERS if scorer in pope_case]
    assert known, f"no scorer of {', '.join(SCORERS)} in the case"
    for scorer in known:
        ours = score_in_order(labels, pope_case["answers"], SCORERS[scorer])
        for name, value in pope_case[scorer].items():
            if name not in ("reference", "parsed"):
                assert ours[name] == pytest.approx(value, abs=1e-12, rel=0, nan_ok=True), (scorer, name)
