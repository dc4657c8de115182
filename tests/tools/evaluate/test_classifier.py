"""`regard evaluate classifier`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import run, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train(out)
    return out


def test_evaluate_measures_what_training_measured(trained: Path, tmp_path: Path) -> None:
    assert run("evaluate", "classifier", "--model", trained, "--data", "digits", "--out", tmp_path) == 0
    measured = json.loads((tmp_path / "summary.json").read_text())["metrics"]
    assert measured == pytest.approx(json.loads((trained / "summary.json").read_text())["metrics"], abs=1e-6)
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[0] == "image,true,predicted,probability"
    right = sum(row.split(",")[1] == row.split(",")[2] for row in rows[1:])
    assert right / 360 == pytest.approx(measured["top1"])


def test_evaluate_takes_any_split(trained: Path, tmp_path: Path) -> None:
    assert run("evaluate", "classifier", "--model", trained / "model", "--split", "val", "--out", tmp_path) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["images"] == 180


def test_evaluate_names_what_is_wrong(
    trained: Path, tmp_path: Path, photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(trained / "model", damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    for words, hint in (
        (["--model", tmp_path / "nothing"], "there is no folder"),
        (["--model", tmp_path], "holds no model"),
        (["--model", damaged], "cannot be loaded"),
        (["--model", trained, "--data", photos()], "has the classes 0, 1, 2, 3, 4, ... (10)"),
    ):
        assert run("evaluate", "classifier", *words, "--out", tmp_path / "out") == 2
        printed = capsys.readouterr().err
        assert hint in printed
        assert "Traceback" not in printed
