"""`regard evaluate`, `demo`, `list`, `doctor` and `benchmark`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import run, train
from PIL import Image

from regard.tools.benchmark.blocks import _contestants
from regard.tools.settings import BenchmarkBlocksSettings
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


def test_demo_trains_twins_and_leaves_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--epochs", "4", "--attention", "ela", "--out", tmp_path) == 0
    table = capsys.readouterr().out
    assert "ela" in table
    assert "softmax" in table
    for name in ("curves.png", "ela/confusion.png", "softmax/confusion.png"):
        with Image.open(tmp_path / name) as image:
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn


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


def test_the_two_contestants_compute_the_same_memory(tmp_path: Path) -> None:
    ours, plain = _contestants("vig_memory", BenchmarkBlocksSettings())
    x = torch.randn(2, 5, 7, 128, generator=torch.Generator().manual_seed(0))
    assert isinstance(plain, torch.nn.Module)
    torch.testing.assert_close(ours(x), plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_benchmark_takes_the_options_of_a_block_and_writes_markdown(tmp_path: Path) -> None:
    words = ["--blocks", "[halonet,vig]", "--sides", "[6]", "--dim", "24", "--batch", "1", "--repeats", "1"]
    options = "{halonet: {block_size: 2, num_heads: 6}, vig: {gate_rank: 4}}"
    files = ["--out", tmp_path / "figures.json", "--markdown", tmp_path / "table.md"]
    assert run("benchmark", *words, "--passes", "[forward]", "--beside", "[plain]", "--options", options, *files) == 0
    halonet, vig = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert set(halonet["ms"]) == {"ours", "plain"}
    assert halonet["ns_per_token"]["ours"] == pytest.approx(1e6 * halonet["ms"]["ours"] / 36)
    assert vig["left_out"]["plain"] == "no gate_rank in the plain formulation"
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[2].startswith("| block | map | pass | ms |")
    assert table[4].startswith("| halonet | 6x6 nhwc | forward |")


def test_benchmark_measures_whole_models_beside_the_host(tmp_path: Path) -> None:
    host = {"depth": 1, "embed_dim": 32, "num_heads": 2, "class_token": False, "global_pool": "avg", "patch_size": 8}
    words = ["--hosts", "[vit_tiny_patch16_224]", "--host_options", json.dumps({"vit_tiny_patch16_224": host})]
    small = ["--image_size", "32", "--batch", "2", "--repeats", "1", "--out", tmp_path / "figures.json"]
    assert run("benchmark", *words, "--blocks", "[ela,halonet]", "--options", "{halonet: {block_size: 2}}", *small) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["block"] for row in rows] == [None, "ela", "halonet"]
    for row in rows:
        assert set(row["ms_per_image"]) == set(row["mb"]) == {"forward", "training"}
        assert row["parameters"] > 0
    assert rows[0]["ratio"]["forward"] == [1, 1, 1]
    patches, width = 16, 32
    linear = patches * width * (8 * 8 * 3 + 12 * width) + 1000 * width
    assert rows[0]["multiply_adds"] == linear + 2 * patches * patches * width


def test_benchmark_compares_networks_with_a_base(tmp_path: Path) -> None:
    tiny = {"depth": 2, "embed_dim": 32, "num_heads": 2}
    drop = tiny | {"token_mode": "clean", "token_keep_rates": [0.5, 0.5]}
    names = "deit_tiny_patch16_224", "sparsifiner_deit_tiny_patch16_224"
    options = json.dumps(dict(zip(names, (tiny, drop), strict=True)))
    words = ["--hosts", f"[{names[1]}]", "--base", names[0], "--host_options", options, "--image_size", "64"]
    small = ["--batch", "1", "--repeats", "1", "--passes", "[forward]", "--out", tmp_path / "figures.json"]
    assert run("benchmark", *words, *small) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["host"] for row in rows] == list(names)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--blocks", "[vam]"], "did you mean 'van'?"),
        (["--device", "cuda:7"], "CUDA"),
        (["--options", "{ela: {version: L}}", "--blocks", "[van]"], "'ela', which is not measured"),
        (["--options", "{van: {shortcat: false}}", "--blocks", "[van]"], "did you mean 'shortcut'?"),
        (["--base", "resnet18"], "no hosts"),
        (["--hosts", "[swin_tiny_patch4_window7_224]", "--blocks", "[van]"], "leaves no place"),
    ],
)
def test_benchmark_names_what_is_wrong(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", "--sides", "[7]", *words) == 2
    assert hint in capsys.readouterr().err
