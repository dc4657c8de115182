"""`regard train`, `evaluate` and `demo` for restoration."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from jobs import run
from lightning.pytorch import Trainer

from regard.datasets.restoration.photographs import photograph
from regard.tools.run.callbacks import EpochSeed, read_table
from regard.tools.run.recipes import read_recipe, recipes
from regard.tools.settings import TrainRestorerSettings
from regard.tools.train import restorer as train_restoration
from regard.vision.restorers import load_restorer

SMALL = {"dim": 8, "depths": [1], "num_heads": 2, "window_size": 8}

TINY = [
    *("--config", "photographs_x2", "--accelerator", "cpu", "--precision", "32-true", "--epochs", "2"),
    *("--crops", "16", "--patch_px", "8", "--optimizer.warmup_epochs", "0"),
    *(word for key, value in SMALL.items() for word in (f"--backbone.options.{key}", json.dumps(value))),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("coffee", "cat", "rocket"):
        assert cv2.imwrite(str(folder / f"{name}.png"), np.ascontiguousarray(photograph(name)[100:180, 100:190, ::-1]))
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert run("train", "restorer", *TINY, "--data", photos, "--shrink", "[1.0]", "--out", out) == 0
    return out


def test_training_leaves_a_restorer_and_what_it_is_worth(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["training_images"] == 2
    assert [row["image"] for row in summary["images"]] == ["cat.png"]
    with (trained / "images.csv").open() as file:
        assert float(next(csv.DictReader(file))["psnr_y"]) == pytest.approx(summary["metrics"]["psnr_y"], abs=1e-3)
    assert load_restorer(str(trained)).scale == 2
    assert (trained / "curves.png").stat().st_size > 5_000


def test_a_stopped_run_goes_on_to_the_same_numbers(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(callback: EpochSeed, trainer: Trainer, module: object) -> None:
        if trainer.current_epoch == 1:
            raise OSError("stopped")

    words = [*TINY, "--data", photos, "--shrink", "[1.0]", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(EpochSeed, "on_train_epoch_start", stop)
        assert run("train", "restorer", *words) == 1
    first = read_table(tmp_path / "out/metrics.csv")
    assert run("train", "restorer", *words) == 0
    again, whole = (read_table(out / "metrics.csv") for out in (tmp_path / "out", trained))
    assert first == again[:1]
    assert again == whole


def test_a_run_that_stopped_early_is_not_trained_on(photos: Path, tmp_path: Path) -> None:
    words = [
        *TINY,
        "--data",
        photos,
        "--shrink",
        "[1.0]",
        "--epochs",
        "9",
        "--early_stop",
        "1",
        "--out",
        tmp_path / "out",
    ]
    words += ["--optimizer.lr", "0.0", "--optimizer.min_lr", "0.0", "--optimizer.warmup_lr", "0.0"]
    assert run("train", "restorer", *words) == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    rows = read_table(tmp_path / "out/metrics.csv")
    assert len(rows) == 2
    (tmp_path / "out/summary.json").unlink()
    assert run("train", "restorer", *words) == 0
    assert read_table(tmp_path / "out/metrics.csv") == rows
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary


def test_evaluating_gives_what_training_gave(trained: Path, photos: Path, tmp_path: Path) -> None:
    words = ["evaluate", "restorer", "--model", trained, "--data", photos / "cat.png", "--device", "cpu"]
    assert run(*words, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out/summary.json").read_text())["images"][0]
    trained_row = json.loads((trained / "summary.json").read_text())["images"][0]
    assert found["psnr_y"] == pytest.approx(trained_row["psnr_y"], abs=1e-3)


def test_pairs_are_evaluated_and_a_broken_one_is_skipped(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = tmp_path / "low"
    low.mkdir()
    for file in photos.iterdir():
        small = cv2.resize(cv2.imread(str(file)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(low / f"{file.stem}x2.png"), small)
    (low / "catx2.png").write_bytes(b"broken")
    words = ["evaluate", "restorer", "--model", trained, "--data", photos, "--lq", low, "--device", "cpu"]
    assert run(*words, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "gain (dB)" in printed.out
    assert "skipped: cat.png" in printed.err
    assert len(json.loads((tmp_path / "out/summary.json").read_text())["images"]) == 2


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--backbone.name", "van_b0"], "is not a restorer of images"),
        (["--data", "nowhere"], "there is no file or folder nowhere"),
        (["--degradation", "noise"], "noise does not shrink images"),
        (["--patch_px", "500"], "choose smaller crops"),
        (["--start", "nowhere.pth"], "there is no weights file nowhere.pth"),
        (["--backbone.attention", "van"], "there is no option --backbone.attention"),
        (["--augmentation.mixup", "0.5"], "there is no option --augmentation.mixup"),
    ],
)
def test_wrong_settings_are_named(
    words: list[str], printed: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [] if words[0] == "--backbone.name" else TINY[2:]
    given = ["--data", str(photos), *words] if "--data" not in words else words
    options = [*TINY[:2], *options] if options else [*TINY[:2], "--backbone.options", "{}"]
    assert run("train", "restorer", *options, *given, "--out", tmp_path / "out") == 2
    assert printed in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in recipes() if name.startswith("restoration/")])
def test_every_recipe_of_restoration_learns_from_a_batch(
    name: str, photos: Path, trained: Path, tmp_path: Path
) -> None:
    settings = read_recipe(name, TrainRestorerSettings, {"data": "photographs"})
    small = SMALL | {"compress_ratio": 3, "squeeze_factor": 12}
    changes: dict[str, Any] = {"workers": 0, "val_fraction": 0.4, "batch_size": 2, "data": str(photos)}
    changes |= {"patch_px": 8, "backbone.options": settings.backbone.options | small}
    if settings.cache:
        changes["cache"] = str(tmp_path / "cache")
    if "RUN" in recipes()[name].read_text():
        changes["start"] = str(trained)
    settings = read_recipe(name, TrainRestorerSettings, changes)
    model = train_restoration.build_restorer(settings)
    restorer = train_restoration.build_module(settings, model)
    data = train_restoration.build_data(settings, model)
    data.setup()
    low, high = next(iter(data.train_dataloader()))
    restorer.loss(restorer(low), high).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_embedded_restorer_beats_bicubic_on_photographs_it_never_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "restorer", "--model", "hat_photo_x2", "--data", "photographs:cat", "--device", "cpu"]
    assert run(*words, "--out", tmp_path / "out") == 0
    means = json.loads((tmp_path / "out/summary.json").read_text())["metrics"]
    assert means["psnr_y"] > means["plain_psnr_y"] + 1.0
    assert means["ssim_y"] > means["plain_ssim_y"] + 0.02


def test_the_demo_draws_and_takes_no_other_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("regard.tools.demo.restoration.DETAILS", {"cat": [(70, 150, 80)]})
    assert run("demo", "restoration", "--out", tmp_path / "out") == 0
    assert cv2.imread(str(tmp_path / "out/cat.png")) is not None
    assert cv2.imread(str(tmp_path / "out/restored/cat.png")).shape == (300, 450, 3)
    assert run("demo", "restoration", "--epochs", "3", "--out", tmp_path / "out") == 2
    assert "there is no option --epochs" in capsys.readouterr().err
