"""`regard evaluate`, `demo`, `list`, `doctor` and `benchmark`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jobs import run, train
from PIL import Image

from regard.vision.attention import ATTENTION


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train(out)
    return out


def test_evaluate_measures_what_training_measured(trained: Path, tmp_path: Path) -> None:
    assert run("evaluate", "--model", trained, "--data", "digits", "--out", tmp_path) == 0
    measured = json.loads((tmp_path / "summary.json").read_text())["metrics"]
    assert measured == pytest.approx(json.loads((trained / "summary.json").read_text())["metrics"], abs=1e-6)
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[0] == "image,true,predicted,probability"
    right = sum(row.split(",")[1] == row.split(",")[2] for row in rows[1:])
    assert right / 360 == pytest.approx(measured["top1"])


def test_evaluate_takes_any_split(trained: Path, tmp_path: Path) -> None:
    assert run("evaluate", "--model", trained / "model", "--split", "val", "--out", tmp_path) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["images"] == 180


def test_evaluate_names_what_is_wrong(
    trained: Path, tmp_path: Path, photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(trained / "model", damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    for words, hint in (
        (["--model", tmp_path / "nothing"], "holds no model"),
        (["--model", damaged], "cannot be loaded"),
        (["--model", trained, "--data", photos()], "knows the classes 0, 1, 2, 3, 4, ... (10)"),
    ):
        assert run("evaluate", *words, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert hint in said
        assert "Traceback" not in said


def test_demo_trains_twins_and_leaves_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--epochs", "4", "--attention", "ela", "--out", tmp_path) == 0
    table = capsys.readouterr().out
    assert "ela" in table
    assert "softmax" in table
    for name in ("curves.png", "ela/confusion.png", "softmax/confusion.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10  # something is drawn


def test_list_shows_every_block_model_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json", "true") == 0
    found = json.loads(capsys.readouterr().out)
    assert [block["name"] for block in found["blocks"]] == list(ATTENTION)
    models = {model["name"]: model for model in found["models"]}
    assert models["van_b0"]["top1"] == 75.4
    assert models["van_b0"]["parameters_M"] == pytest.approx(4.106, abs=1e-3)
    assert models["van_b0"]["weights"] == "published"
    assert models["van_b4"]["weights"] == "none"
    assert "the dense network" in models["sparsifiner_deit_tiny_patch16_224"]["weights"]
    assert all(recipe["command"].startswith("regard ") for recipe in found["recipes"])
    assert run("list") == 0
    assert "van_b0" in capsys.readouterr().out


def test_doctor_names_what_is_missing_and_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    said = capsys.readouterr().out
    for part in ("torch", "timm", "cpu", "tensorboard"):
        assert part in said


def test_benchmark_compares_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--blocks", "[ela]", "--sides", "[16]", "--batch", "2", "--repeats", "1", "--passes", "[forward]"]
    assert run("benchmark", *words, "--out", tmp_path / "figures.json") == 0
    assert "plain" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert set(row["ms"]) == {"ours", "plain", "softmax"}
    assert row["mb"]["ours"] <= 0.55 * row["mb"]["plain"]


@pytest.mark.parametrize(
    ("words", "hint"), [(["--blocks", "[vam]"], "did you mean 'van'?"), (["--device", "cuda:7"], "CUDA")]
)
def test_benchmark_names_what_is_wrong(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", "--sides", "[7]", *words) == 2
    assert hint in capsys.readouterr().err
