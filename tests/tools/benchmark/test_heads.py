"""`regard benchmark heads`: multiple-instance heads compared with torchmil's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jobs import run

FEW = ["--instances", "[30]", "--features", "16", "--repeats", "1"]


def test_both_give_the_same_logits_and_are_timed(tmp_path: Path) -> None:
    pytest.importorskip("torchmil", reason="torchmil is a dependency of this benchmark alone")
    out = tmp_path / "figures.json"
    heads = "[abmil,dsmil,dsmil_nonlinear,transmil]"
    assert run("benchmark", "heads", "--heads", heads, *FEW, "--out", out) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["head"] for row in rows] == heads.strip("[]").split(",")
    for row in rows:
        assert row["max_logit_difference"] < 1e-5
        assert min(row["ms"]["ours"], row["mb"]["ours"], row["share"], *row["ratio"]) > 0


def test_large_bags_are_measured_without_torchmil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmil", None)
    out = tmp_path / "figures.json"
    words = ["--heads", "[abmil,acmil,mean]", *FEW, "--chunk", "8", "--dtype", "float16", "--out", out]
    assert run("benchmark", "heads", *words) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["head"] for row in rows] == ["abmil", "acmil", "mean"]
    assert min(min(row["s"], row["gb"]) for row in rows) > 0


def test_a_head_that_takes_no_chunks_is_named(capsys: pytest.CaptureFixture) -> None:
    assert run("benchmark", "heads", "--heads", "[transmil]", *FEW, "--chunk", "8") == 2
    assert "transmil has no option 'chunk'" in capsys.readouterr().err


def test_without_torchmil_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "torchmil", None)
    assert run("benchmark", "heads", "--heads", "[abmil]", *FEW) == 2
    assert "pip install torchmil" in capsys.readouterr().err


def test_a_head_that_it_has_not_is_named(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("torchmil", reason="torchmil is a dependency of this benchmark alone")
    assert run("benchmark", "heads", "--heads", "[acmil]", *FEW) == 2
    assert "no head 'acmil' to compare with torchmil; choose from abmil, dsmil" in capsys.readouterr().err
