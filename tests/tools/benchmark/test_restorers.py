"""`regard benchmark restorers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import run

COMMON = ["benchmark", "restorers", "--restorers", "[hat_photo_x2]", "--repeats", "1"]


def test_a_network_is_measured_beside_its_plain_formulation(tmp_path: Path) -> None:
    assert run(*COMMON, "--sides", "[24]", "--out", tmp_path / "found.json") == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert row["multiply_adds"] > 1e6
    assert row["mb"]["ours"] < row["mb"]["plain"]


def test_overlaps_bring_tiles_near_the_whole_image(tmp_path: Path) -> None:
    words = ("--sides", "[96]", "--tile", "64", "--overlaps", "[0,4]", "--out", tmp_path / "found.json")
    assert run(*COMMON, *words) == 0
    hard, faded = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert faded["max"] < 1 < hard["max"]


def test_a_name_that_restores_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", "restorers", "--restorers", "[resnet10t]", "--sides", "[32]") == 2
    assert "resnet10t is not a HAT" in capsys.readouterr().err
