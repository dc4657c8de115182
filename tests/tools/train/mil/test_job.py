"""`regard train` on bags: the same numbers whatever happens on the way, one comparison of all heads, clear words."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from jobs import run, start
from PIL import Image
from slide_folder import DIM, write_slides

from regard.datasets.bags import open_bags, read_folds
from regard.heads import HEADS
from regard.heads.trained_head import load_trained_head
from regard.tools.demo import mil as demo_bags
from regard.tools.run.recipes import read_recipe, recipes
from regard.tools.settings import TrainMilSettings
from regard.tools.train.mil import job as train_mil

SMALL = {"width": 8, "hidden": 4}
ABMIL = {"name": "abmil", "options": SMALL}

#: Options that make a head small.
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"width": 8} for name in ("mean", "max", "mhim")},
    **{name: dict(SMALL) for name in ("abmil", "dtfd", "acmil")},
    **{name: SMALL | {"samples": 2} for name in ("clam_sb", "clam_mb")},
    **{name: {"width": 8, "heads": 2} for name in ("abmil_mha", "acmil_mha")},
    **{name: {"width": 8, "heads": 2} for name in ("transmil", "ilra")},
    "dsmil": {"hidden": 4},
    "ibmil": SMALL | {"count": 3, "joint": 4},
    "ins": {"width": 8, "embedding": 4, "queue": 16},
}


def recipe(folder: Path, heads: list[dict[str, Any]], settings: Mapping[str, Any] | None = None, **bags: Any) -> Path:
    """A file of settings for tiny runs."""
    own = {"folds": 2, "val_share": 0.25, "resamples": 50} | bags
    chosen = {"heads": heads} | own | {"epochs": 2, "batch_size": 4, "accelerator": "cpu"} | dict(settings or {})
    chosen["optimizer"] = {"lr": 0.01, "weight_decay": 0.001, "warmup_epochs": 0} | chosen.get("optimizer", {})
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(chosen))
    return file


def train(file: Path, out: Path, *words: str) -> dict[str, Any]:
    """The summary of a run that must succeed."""
    assert run("train", "mil", "--config", file, "--out", out, *words) == 0
    return json.loads((out / "summary.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def slides(tmp_path: Path) -> list[str]:
    return write_slides(tmp_path / "slides")


def test_heads_are_compared_on_a_folder_of_clam(
    tmp_path: Path, slides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [ABMIL, {"name": "mean", "options": {"width": 8}}, ABMIL | {"aem": {"weight": 0.1}}]
    out = tmp_path / "out"
    summary = train(recipe(tmp_path, heads, seeds=[0, 1]), out, *slides)
    printed = capsys.readouterr().out
    for word in ("abmil+aem", "AUC", "macro F1", "entropy / ln N", "top-10 mass", "p (Holm)", "2 folds x 2 seeds"):
        assert word in printed
    assert list(summary["heads"]) == ["abmil", "mean", "abmil+aem"]
    lead = summary["heads"]["abmil"]["metrics"]["auc"]
    assert lead["low"] <= lead["mean"] <= lead["high"]
    assert summary["heads"]["mean"]["attention"] == {}
    assert summary["tests"].keys() == {"mean", "abmil+aem"}
    predictions = rows(out / "predictions.csv")
    assert len(predictions) == 3 * 2 * 24  # every slide is tested once for each head and seed
    assert {row["label"] for row in predictions} == {"normal", "tumour"}
    assert all(float(row["p_normal"]) + float(row["p_tumour"]) == pytest.approx(1, abs=1e-4) for row in predictions)
    values = [float(row["auc"]) for row in rows(out / "runs.csv") if row["head"] == "abmil"]
    assert (np.mean(values), np.std(values, ddof=1)) == pytest.approx((lead["mean"], lead["std"]), abs=1e-4)
    for name in ("settings.yaml", "run.json", "runs/abmil/fold_1_seed_0/metrics.csv"):
        assert (out / name).is_file()
    assert not list(out.rglob("*.ckpt"))
    with Image.open(out / "heads.png") as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_folds_are_clams_files_and_may_be_given_as_such(tmp_path: Path, slides: list[str]) -> None:
    first = train(recipe(tmp_path, [ABMIL]), tmp_path / "first", *slides)
    folds = read_folds(tmp_path / "first/folds", open_bags(slides[1], table=slides[3]))
    for fold in folds:
        patients = [{index // 2 for index in part} for part in (fold.train, fold.val, fold.test)]
        assert sum(map(len, patients)) == len(set.union(*patients))
    again = train(recipe(tmp_path, [ABMIL], folds=str(tmp_path / "first/folds")), tmp_path / "again", *slides)
    assert again["heads"] == first["heads"]


def test_the_exported_head_gives_the_predictions_of_the_run(tmp_path: Path, slides: list[str]) -> None:
    train(recipe(tmp_path, [ABMIL], encoder="uni", classes=["tumour", "normal"]), tmp_path / "out", *slides)
    head = load_trained_head(tmp_path / "out/runs/abmil/fold_1_seed_0/model")
    assert (head.classes, head.encoder, head.dim_in) == (["tumour", "normal"], "uni", DIM)
    assert (head.std != 1).all()
    bags = open_bags(slides[1], table=slides[3])
    indices = {bag.id: index for index, bag in enumerate(bags.bags)}
    found = [row for row in rows(tmp_path / "out/predictions.csv") if row["fold"] == "1"]
    for row in found:
        output = head(bags.features(indices[row["slide"]]))
        assert float(row["p_tumour"]) == pytest.approx(head.probabilities(output.logits)[0].item(), abs=1e-4)


def test_every_head_trains_side_by_side(tmp_path: Path, slides: list[str]) -> None:
    heads: list[dict[str, Any]] = [{"name": name, "options": OPTIONS[name]} for name in HEADS]
    heads[list(HEADS).index("ibmil")]["after"] = "abmil"
    out = tmp_path / "out"
    summary = train(recipe(tmp_path, heads, {"epochs": 1, "accumulate": 2}, folds=2), out, *slides)
    assert set(summary["heads"]) == set(HEADS)
    found = load_trained_head(out / "runs/ibmil/fold_0_seed_0/model").head.confounder_feat
    assert found.abs().sum() > 0


def test_a_killed_run_ends_with_the_numbers_of_one_that_was_not(
    tmp_path: Path, slides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = [ABMIL, {"name": "mhim", "options": {"width": 8, "merge_tokens": 2}}]
    file = recipe(tmp_path, heads, {"epochs": 20}, instances=3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setattr(train_mil, "SAVE_EVERY_S", 0.0)
    train(file, whole, *slides)
    code = (
        "from regard.tools import cli; from regard.tools.train.mil import job; job.SAVE_EVERY_S = 0.0; "
        "import sys; cli.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "train", "mil", "--config", str(file), "--out", str(killed), *slides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (killed / "runs/mhim/fold_0_seed_0/last.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = killed / "runs/abmil/fold_0_seed_0/result.json"
    before = first.stat().st_mtime_ns
    assert not (killed / "summary.json").exists()
    train(file, killed, *slides)
    assert first.stat().st_mtime_ns == before  # what was finished is kept
    for name in ("summary.json", "predictions.csv", "runs/mhim/fold_0_seed_0/metrics.csv"):
        assert (killed / name).read_text() == (whole / name).read_text()


def test_a_finished_run_is_not_trained_again_and_more_heads_are_added_to_it(
    tmp_path: Path, slides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    first = train(recipe(tmp_path, [ABMIL]), out, *slides)
    capsys.readouterr()
    assert train(recipe(tmp_path, [ABMIL]), out, *slides) == first
    assert "fold" not in capsys.readouterr().err
    more = train(recipe(tmp_path, [ABMIL, {"name": "mean", "options": {"width": 8}}]), out, *slides)
    printed = capsys.readouterr().err
    assert "abmil, fold" not in printed
    assert "mean, fold" in printed
    assert more["heads"]["abmil"] == first["heads"]["abmil"]


def test_other_settings_do_not_mix_with_a_run(
    tmp_path: Path, slides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train(recipe(tmp_path, [ABMIL]), out, *slides)
    changed = [
        ([ABMIL], {"epochs": 3}, "epochs: 2 there, 3 here"),
        ([{"name": "abmil"}], {}, "holds another abmil (options:"),
    ]
    for heads, settings, hint in changed:
        assert run("train", "mil", "--config", recipe(tmp_path, heads, settings), "--out", out, *slides) == 2
        assert hint in capsys.readouterr().err


def test_two_processes_give_the_metrics_of_one(tmp_path: Path, slides: list[str]) -> None:
    heads = [ABMIL, {"name": "clam_mb", "options": SMALL | {"samples": 2, "drop_rate": 0.0}}]
    file = recipe(tmp_path, heads, {"devices": "1"})
    for count in ("1", "2"):
        words = ["train", "mil", "--config", file, *slides, "--devices", count, "--out", tmp_path / count]
        process = start(words)
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    one, two = (rows(tmp_path / count / "predictions.csv") for count in ("1", "2"))
    assert len(one) == len(two) == 48
    for first, second in zip(one, two, strict=True):
        assert first["slide"] == second["slide"]
        if first["head"] == "abmil":  # CLAM's gathers of instances are means over a device's bags
            assert float(first["p_tumour"]) == pytest.approx(float(second["p_tumour"]), abs=1e-4)


def test_survival_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write_slides(tmp_path / "slides", slides=48, survival=True)
    heads = [ABMIL, {"name": "acmil", "options": SMALL | {"branches": 2}}]
    file = recipe(tmp_path, heads, {"epochs": 12, "best_by": "loss"}, task="survival", intervals=2)
    summary = train(file, tmp_path / "out", *words)
    assert "concordance" in capsys.readouterr().out
    assert summary["heads"]["abmil"]["metrics"]["concordance"]["mean"] > 0.7
    assert summary["heads"]["abmil"]["metrics"].keys() == {"concordance", "loss"}
    found = rows(tmp_path / "out/predictions.csv")
    assert all(float(row["survival_1"]) <= float(row["survival_0"]) for row in found)
    head = load_trained_head(tmp_path / "out/runs/abmil/fold_0_seed_0/model")
    assert head.task == "survival"
    assert head.classes == [f"before {head.cuts[0]:g}", f"from {head.cuts[0]:g}"]


def test_training_stops_early_but_not_before_it_may(tmp_path: Path, slides: list[str]) -> None:
    own = {"epochs": 9, "early_stop": 2, "optimizer": {"lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0}}
    for earliest, epochs in ((1, 3), (6, 6)):
        out = tmp_path / f"from_{earliest}"
        file = recipe(tmp_path, [ABMIL | {"options": SMALL}], own, early_stop_from=earliest)
        train(file, out, *slides)
        result = json.loads((out / "runs/abmil/fold_0_seed_0/result.json").read_text())
        assert result["epochs"] == epochs
        assert result["best_epoch"] == epochs  # of epochs alike the last


def test_the_best_epoch_counts_and_without_validation_the_last(tmp_path: Path, slides: list[str]) -> None:
    for share, best_by in ((0.25, "loss"), (0.0, "score")):
        out = tmp_path / best_by
        file = recipe(tmp_path, [ABMIL], {"epochs": 5, "best_by": best_by, "optimizer": {"lr": 0.3}}, val_share=share)
        train(file, out, *slides)
        folder = out / "runs/abmil/fold_0_seed_0"
        table = rows(folder / "metrics.csv")
        chosen = json.loads((folder / "result.json").read_text())["best_epoch"]
        if share:
            losses = [float(row["val_loss"]) for row in table]
            assert losses[chosen - 1] == min(losses)
        else:
            assert "val_loss" not in table[0]
            assert chosen == 5


def test_all_options_work_together(tmp_path: Path) -> None:
    words = write_slides(tmp_path / "slides", dtype=np.float16)
    settings = {"accumulate": 2, "precision": "bf16-mixed", "limit_batches": 2, "optimizer": {"clip_grad": 1.0}}
    options = {"class_weights": "balanced", "weighted_sampling": True, "instances": 0.5, "chunk": 2, "workers": 1}
    heads = [ABMIL, {"name": "clam_sb", "options": SMALL | {"samples": 2}, "aem": {"schedule": "cosine"}}]
    file = recipe(tmp_path, heads, settings, standardise=False, score="macro_f1", reference="clam_sb+aem", **options)
    summary = train(file, tmp_path / "out", *words)
    assert (summary["score"], summary["reference"]) == ("macro_f1", "clam_sb+aem")
    assert not (tmp_path / "out/runs/abmil/fold_0_seed_0/model/features.safetensors").exists()


def test_every_seed_renders_a_data_set_with_known_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = [ABMIL, {"name": "max", "options": {"width": 8}}]
    summary = train(recipe(tmp_path, heads, {"epochs": 1}, seeds=[3, 4]), tmp_path / "out", "--data", "mil_rare")
    assert (summary["bags_per_seed"], summary["seeds"], summary["bags"]) == (True, 2, 200)
    assert 0 <= summary["heads"]["abmil"]["attention"]["instance_auc"]["mean"] <= 1
    assert "sets better" in capsys.readouterr().out


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"heads": [{"name": "abmill"}]}, "did you mean 'abmil'"),
    ({"heads": [{"name": "abmil", "options": {"widht": 3}}]}, "did you mean 'width'"),
    ({"heads": [{"name": "acmil", "options": {"branches": "five"}}]}, "the head acmil"),
    ({"heads": [{"name": "mean", "aem": {}}]}, "has no attention for AEM"),
    ({"heads": [{"name": "abmil", "aem": {"weight": -1.0}}]}, "weight is -1.0"),
    ({"heads": []}, "--heads is empty"),
    ({"heads": [ABMIL, ABMIL]}, "two heads have the label 'abmil'"),
    ({"heads": [ABMIL | {"label": "../x"}]}, "give letters, digits"),
    ({"heads": [ABMIL], "reference": "mean"}, "--reference is 'mean'"),
    ({"heads": [ABMIL], "score": "concordance"}, "is not available for classification"),
    ({"heads": [{"name": "ibmil"}]}, "needs confounders of a first stage"),
    ({"heads": [{"name": "transmil"}], "chunk": 10}, "has no option 'chunk'"),
    ({"heads": [ABMIL], "task": "survival"}, "time"),
    ({"heads": [ABMIL], "seeds": [1, 1]}, "give one or more different numbers"),
    ({"heads": [ABMIL], "folds": 200}, "too few for 200 folds"),
    ({"heads": [ABMIL], "folds": "no/such/folder"}, "no/such/folder"),
    ({"heads": [ABMIL], "classes": ["normal", "benign"]}, "'tumour', which is not one of normal, benign"),
    ({"heads": [ABMIL], "label": "grade"}, "grade"),
    ({"heads": [ABMIL], "instances": 1.5}, "instances is 1.5"),
    ({"heads": [{"name": "ins"}], "task": "survival"}, "time"),
]


@pytest.mark.parametrize(("bags", "hint"), WRONG, ids=[hint for _, hint in WRONG])
def test_a_wrong_setting_is_named(
    bags: dict[str, Any], hint: str, tmp_path: Path, slides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "mil", "--config", recipe(tmp_path, **bags), "--out", tmp_path / "out", *slides) == 2
    printed = capsys.readouterr().err
    assert hint in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--backbone.name", "van_b0"], "there is no option --backbone.name"),
        (["--optimizer.layer_decay", "0.7"], "layer_decay"),
        (["--data", "uscb"], "did you mean 'ucsb'"),
        (["--batch_size", "3", "--accumulate", "2"], "divisible"),
        (["--early_stop", "3", "--val_share", "0.0"], "watches validation bags"),
        (["--optimizer.name", "adamx"], "adamx"),
        (["--optimizer.schedule", "plateau"], "needs a metric"),
        (["--optimizer.warmup_epochs", "2"], "leave nothing of 2 epochs"),
        (["--optimizer.lr", "1e30"], "the training loss became nan"),
        (["--table", "null"], "lack label"),
    ],
)
def test_a_wrong_word_is_named(
    words: list[str], hint: str, tmp_path: Path, slides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "mil", "--config", recipe(tmp_path, [ABMIL]), "--out", tmp_path / "out", *slides, *words) == 2
    printed = capsys.readouterr().err
    assert hint in printed
    assert "Traceback" not in printed


def test_features_that_are_no_numbers_are_named_with_their_slide(
    tmp_path: Path, slides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "slides/h5_files/slide_7.h5", "r+") as file:
        file["features"][1, 2] = np.nan
    for standardise in (True, False):
        file = recipe(tmp_path, [ABMIL], standardise=standardise)
        assert run("train", "mil", "--config", file, "--out", tmp_path / f"out_{standardise}", *slides) == 2
        printed = capsys.readouterr().err
        assert "slide slide_7" in printed
        assert "not numbers" in printed


@pytest.mark.parametrize("survival", [False, True])
def test_a_part_that_nothing_can_be_learnt_from_is_named(
    survival: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write_slides(tmp_path / "slides", survival=survival)
    table = tmp_path / "slides/slides.csv"
    splits = tmp_path / "splits"
    splits.mkdir()
    alike = [number for number in range(24) if number // 2 % 2 == 0]
    names = {part: [f"slide_{number}" for number in own] for part, own in (("train", alike[:8]), ("test", alike[8:]))}
    lines = [",train,val,test"] + [
        f"{line},{first},,{names['test'][line] if line < 4 else ''}" for line, first in enumerate(names["train"])
    ]
    (splits / "splits_0.csv").write_text("\n".join(lines) + "\n")
    if survival:
        text = table.read_text().splitlines()
        table.write_text("\n".join([text[0], *(line[:-1] + "0" for line in text[1:])]) + "\n")
    own = {"task": "survival", "intervals": 2} if survival else {}
    file = recipe(tmp_path, [ABMIL], folds=str(splits), **own)
    assert run("train", "mil", "--config", file, "--out", tmp_path / "out", *words) == 2
    assert ("all are censored" if survival else "lacks the label 'tumour'") in capsys.readouterr().err


def test_no_bags_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    words = ["--config", recipe(tmp_path, [ABMIL]), "--data", tmp_path / "empty", "--out", tmp_path / "out"]
    assert run("train", "mil", *words) == 2
    assert "empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in recipes() if name.startswith("mil/")])
def test_every_recipe_of_bags_trains_for_a_step(name: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"out": str(tmp_path / "out"), "epochs": 1, "limit_batches": 1, "accelerator": "cpu"}
    changes |= {"resamples": 10, "workers": 0}
    content = yaml.safe_load(recipes()[name].read_text())
    settings = read_recipe(name, TrainMilSettings, {"data": "ucsb"})
    if content["data"] == "FEATURES":
        words = write_slides(tmp_path / "slides", slides=48, survival=settings.task == "survival")
        changes |= {"data": words[1], "table": words[3]}
    if isinstance(settings.folds, str):
        changes["val_share"] = 0.25
    changes |= {"seeds": [0], "repeats": 1, "folds": 2}
    assert train_mil.run(read_recipe(name, TrainMilSettings, changes)) == 0
    assert list((tmp_path / "out").glob("runs/*/*/model/model.safetensors"))


def test_demo_mil_compares_heads_and_leaves_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fewer(name: str, settings: type[TrainMilSettings], changes: dict[str, Any]) -> TrainMilSettings:
        less = {"seeds": [0, 1], "repeats": 1, "folds": 2, "resamples": 10}
        return read_recipe(name, settings, changes | less)

    monkeypatch.setattr(demo_bags, "read_recipe", fewer)
    threads = torch.get_num_threads()
    try:
        assert run("demo", "mil", "--epochs", "1", "--out", tmp_path) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for word in ("ucsb", "mil_shortcut", "acmil", "instance AUC", "p (Holm)"):
        assert word in printed
    for name in ("ucsb_heads", "shortcut_heads"):
        assert (tmp_path / name / "heads.png").is_file()
    assert run("demo", "mil", "--attention", "ela", "--out", tmp_path) == 2
    assert "there is no option --attention" in capsys.readouterr().err
