"""`regard list` and `regard doctor`."""

from __future__ import annotations

import json

import pytest
from jobs import run

from regard.vision.attention import ATTENTION


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
    assert run("list", "--kind", "blocks") == 0
    assert "van" in capsys.readouterr().out


def test_doctor_names_what_is_missing_and_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    printed = capsys.readouterr().out
    for part in ("torch", "timm", "cpu", "tensorboard"):
        assert part in printed
