"""`regard train`: the same numbers again, whatever happens on the way, and a clear word for what is wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from jobs import TINY, run, start, train
from PIL import Image

from regard.tools.run.callbacks import SafeCheckpointIO, read_table
from regard.tools.run.recipes import read_recipe, recipes
from regard.tools.settings import TrainClassifierSettings
from regard.tools.train import classifier as train_job


def message(capsys: pytest.CaptureFixture[str], code: int, *words: str | Path) -> str:
    """What a command says that must end with `code` and without a traceback."""
    assert run("train", "classifier", *TINY, *words) == code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return printed


def test_the_same_seed_gives_the_same_numbers_twice(tmp_path: Path) -> None:
    first, second, other = (
        train(tmp_path / name, "--seed", seed, "--augmentation.mixup", "0.8")
        for name, seed in (("first", "1"), ("second", "1"), ("other", "2"))
    )
    assert first["metrics"] == second["metrics"]
    assert (tmp_path / "first/metrics.csv").read_text() == (tmp_path / "second/metrics.csv").read_text()
    assert first["metrics"] != other["metrics"]


def test_a_killed_run_ends_with_the_numbers_of_one_that_was_not(tmp_path: Path) -> None:
    words = ["train", "classifier", *TINY, "--epochs", "4", "--ema_decay", "0.9", "--augmentation.cutmix", "1.0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start([*words, "--out", killed])
    while not (killed / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "summary.json").exists()
    for out in (killed, whole):
        process = start([*words, "--out", out])
        assert process.wait() == 0, process.communicate()[1]
        process.communicate()
    assert (killed / "summary.json").read_text() == (whole / "summary.json").read_text()
    assert (killed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_two_processes_give_the_metrics_of_one(tmp_path: Path) -> None:
    words = ["train", "classifier", *TINY, "--accelerator", "cpu", "--backbone.options.drop_path_rate", "0.0"]
    for count in ("1", "2"):
        strategy = ["--strategy", "ddp"] if count == "2" else []
        process = start([*words, "--devices", count, *strategy, "--out", tmp_path / count])
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    one, two = (json.loads((tmp_path / count / "summary.json").read_text())["metrics"] for count in ("1", "2"))
    assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in recipes() if name.startswith("vision/")])
def test_every_recipe_builds_and_trains_for_a_step(
    name: str, tmp_path: Path, photos: Callable[..., Path], idx_folder: Path
) -> None:
    text = recipes()[name].read_text()
    data = [] if "data: digits" in text else ["--data", idx_folder if "idx" in name else photos(each=4)]
    small = ["--epochs", "1", "--batch_size", "4", "--limit_batches", "1", "--images.workers", "0"]
    small += ["--optimizer.warmup_epochs", "0", "--optimizer.cooldown_epochs", "0", "--accelerator", "cpu"]
    small += ["--backbone.pretrained", "false", "--strategy", "auto"]  # no network, one process
    small += ["--method_options.reconstruction_epochs", "0"] if "method: sparsifiner" in text else []
    small += ["--precision", "bf16-mixed"] if "precision: 16-mixed" in text else []  # float16 needs a GPU
    assert run("train", "classifier", "--config", name, *data, *small, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/model/model.safetensors").exists()


def test_sparsifiner_learns_in_two_stages_on_two_processes(tmp_path: Path) -> None:
    train(tmp_path / "dense", "--backbone.attention", "softmax", "--backbone.options.qk_norm", "false")
    words = ["train", "classifier", "--config", "digits_sparsifiner_stages", *TINY[2:], "--out", tmp_path / "sparse"]
    words += ["--backbone.weights", tmp_path / "dense/model/model.safetensors"]
    words += ["--method_options.reconstruction_epochs", "1", "--accelerator", "cpu", "--devices", "2"]
    process = start([*words, "--strategy", "ddp_find_unused_parameters_true"])
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    first, second = read_table(tmp_path / "sparse/metrics.csv")
    assert first["train_reconstruction"] > 0
    assert "train_distillation" not in first
    assert "train_distillation" in second


def test_an_option_that_the_method_has_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = message(capsys, 2, "--out", tmp_path / "out", "--method_options.stages", "2")
    assert "--method supervised has no option 'stages'; it has none" in printed
    printed = message(capsys, 2, "--out", tmp_path / "out", "--method", "sparsifiner", "--method_options.stages", "2")
    assert "reconstruction_epochs" in printed


def test_sparsifiner_needs_predictors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = message(capsys, 2, "--out", tmp_path / "out", "--method", "sparsifiner")
    assert "has no predictors; take a sparsifiner_* model" in printed


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = b"\x00\x00\x08\x01" + count.to_bytes(4, "big")
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return folder


def test_the_exported_folder_is_the_best_model(tmp_path: Path) -> None:
    train(tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path}/out/model", pretrained=True)
    best = SafeCheckpointIO().load_checkpoint(tmp_path / "out/last.ckpt")["callbacks"]["BestEpoch"]["weights"]
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(weight, best[f"model.{key}"], rtol=0, atol=0)
    config = json.loads((tmp_path / "out/model/config.json").read_text())
    assert config["label_names"] == [str(digit) for digit in range(10)]
    assert timm.data.resolve_model_data_config(model)["input_size"] == (1, 8, 8)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = train(tmp_path / "out")
    capsys.readouterr()
    assert train(tmp_path / "out") == summary
    assert "epoch" not in capsys.readouterr().err


def test_another_device_count_is_no_other_run(tmp_path: Path) -> None:
    summary = train(tmp_path / "out")
    assert train(tmp_path / "out", "--devices", "1", "--images.workers", "1") == summary


def test_every_option_of_training_works_together(tmp_path: Path) -> None:
    words = [
        "--ema_decay",
        "0.99",
        "--accumulate",
        "2",
        "--grad_checkpointing",
        "true",
        "--channels_last",
        "true",
    ]
    words += ["--precision", "bf16-mixed", "--optimizer.layer_decay", "0.7", "--optimizer.clip_grad", "1.0"]
    words += ["--augmentation.mixup", "0.2", "--augmentation.cutmix", "1.0", "--augmentation.erase", "0.25"]
    words += ["--augmentation.auto_augment", "rand-m9-mstd0.5-inc1", "--early_stop", "1", "--best_by", "loss"]
    words += ["--augmentation.albumentations", "[{GaussNoise: {p: 0.5}}]"]
    assert 0 <= train(tmp_path / "out", *words)["metrics"]["top1"] <= 1


def test_a_compiled_model_trains_and_exports_under_the_same_names(tmp_path: Path) -> None:
    words = [
        "train",
        "classifier",
        *TINY,
        "--out",
        tmp_path / "out",
        "--compile",
        "true",
        "--epochs",
        "1",
        "--limit_batches",
        "1",
    ]
    process = start(words)  # of its own, since checked annotations do not trace
    assert process.wait() == 0, process.communicate()[1]
    process.communicate()
    timm.create_model(f"local-dir:{tmp_path}/out/model", pretrained=True)


def test_early_stop_ends_the_run_and_a_restart_does_not_go_on(tmp_path: Path) -> None:
    words = ["--optimizer.lr", "0.0", "--optimizer.min_lr", "0.0", "--early_stop", "2", "--epochs", "9"]
    summary = train(tmp_path / "out", *words)
    rows = (tmp_path / "out/metrics.csv").read_text()
    assert len(rows.splitlines()) == 1 + 3
    (tmp_path / "out/summary.json").unlink()
    assert train(tmp_path / "out", *words) == summary
    assert (tmp_path / "out/metrics.csv").read_text() == rows


def test_images_may_have_several_labels(tmp_path: Path, photos: Callable[..., Path]) -> None:
    folder = photos(classes=("all",), each=64)
    lines = [
        f"all/{index}.png,{'|'.join(name for bit, name in enumerate('abc') if index >> bit & 1)}" for index in range(64)
    ]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    words = [
        "--data",
        folder,
        "--backbone.options.img_size",
        "16",
        "--images.test_fraction",
        "0.3",
        "--images.val_fraction",
        "0.3",
    ]
    summary = train(tmp_path / "out", *words, "--batch_size", "8")
    assert set(summary["metrics"]) == {"mean_average_precision", "macro_f1", "exact_match", "loss"}
    assert summary["classes"] == ["a", "b", "c"]
    assert (tmp_path / "out/per_class.csv").read_text().count("\n") == 4


def test_other_settings_do_not_mix_with_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "out")
    printed = message(capsys, 2, "--out", tmp_path / "out", "--optimizer.lr", "0.5")
    assert "optimizer.lr: 0.002 there, 0.5 here" in printed


def test_a_truncated_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "out")
    (tmp_path / "out/summary.json").unlink()
    whole = (tmp_path / "out/last.ckpt").read_bytes()
    (tmp_path / "out/last.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "last.ckpt is truncated or not a checkpoint" in message(capsys, 2, "--out", tmp_path / "out")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="truncated or not a checkpoint"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--backbone.attention", "vam"], "did you mean 'van'?"),
        (["--backbone.attention_options", "{shortcuts: false}"], "did you mean 'shortcut'?"),
        (["--backbone.name", "vit_tiny_patch16_24"], "did you mean 'vit_tiny_patch16_224'?"),
        (["--backbone.options.patch_size", "16"], "the model does not accept images of 1 x 8 x 8"),
        (["--backbone.options.patch_sizes", "2"], "patch_sizes"),
        (["--backbone.options.img_size", "8", "--images.size", "[9, 9]"], "the model does not accept images"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--optimizer.name", "adamx"], "adamx"),
        (["--optimizer.schedule", "cosinus"], "cosinus"),
        (["--optimizer.warmup_epochs", "2"], "leave nothing of 2 epochs"),
        (["--batch_size", "7", "--accumulate", "2"], "divisible"),
        (["--devices", "0"], "devices"),
        (["--accelerator", "tpu"], "torch_xla"),
        (["--loggers", "[wandb]"], 'pip install "regard[wandb]"'),
        (["--optimizer.lr", "1e30", "--epochs", "3"], "the training loss became nan"),
        (["--augmentation.auto_augment", "randx"], "randx"),
        (["--augmentation.albumentations", "[{ElasticTransfrom: {}}]"], "ElasticTransform"),
    ],
)
def test_a_wrong_setting_is_named(
    words: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in message(capsys, 2, "--out", tmp_path / "out", *words)


def test_an_unreadable_image_stops_the_run_with_its_path(
    tmp_path: Path, photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos()
    for name in ("cat", "dog", "owl"):  # one in each class, so that each split is likely to hold one
        broken = folder / name / "0.png"
        broken.write_bytes(broken.read_bytes()[:200])
    words = [
        "--data",
        folder,
        "--backbone.options.img_size",
        "8",
        "--images.workers",
        "1",
        "--batch_size",
        "8",
    ]
    printed = message(capsys, 2, "--out", tmp_path / "stops", *words)
    assert f"cannot read the image {folder}" in printed
    printed = message(capsys, 1, "--out", tmp_path / "skips", *words, "--images.skip_unreadable", "true")
    assert "3 unreadable images were skipped" in printed
    summary = json.loads((tmp_path / "skips/summary.json").read_text())
    assert sorted(image["path"] for image in summary["unreadable"]) == sorted(
        str(folder / name / "0.png") for name in ("cat", "dog", "owl")
    )


def test_images_of_all_modes_train_together(tmp_path: Path, photos: Callable[..., Path]) -> None:
    folder = photos()
    for index, mode in enumerate(("L", "RGBA", "P", "LA", "1")):
        path = folder / "cat" / f"{index}.png"
        Image.open(path).convert(mode).save(path)
    Image.fromarray(np.full((30, 40), 60_000, np.uint16)).save(folder / "dog" / "0.png")
    rotated = Image.new("RGB", (30, 40), "red")
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(folder / "owl" / "0.jpg", exif=exif)
    train(tmp_path / "out", "--data", folder, "--backbone.options.img_size", "8", "--batch_size", "8")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can take write permission from itself")
def test_no_write_permission_stops_before_anything_is_read(tmp_path: Path) -> None:
    settings = read_recipe("digits_vit_van", TrainClassifierSettings, {"out": str(tmp_path / "out")})
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match=str(tmp_path)):
            train_job.run(settings)
    finally:
        os.seteuid(0)


def test_a_permission_that_is_missing_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(settings: TrainClassifierSettings) -> int:
        raise PermissionError(13, "Permission denied", settings.out)

    monkeypatch.setattr(train_job, "run", refuse)
    assert f"Permission denied: '{tmp_path}/out'" in message(capsys, 2, "--out", tmp_path / "out")


def test_a_file_as_output_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    assert "is a file; give a folder" in message(capsys, 2, "--out", tmp_path / "out")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    words = ["train", "classifier", *TINY, "--out", tmp_path]
    train(tmp_path)
    (tmp_path / "summary.json").unlink()
    before = (tmp_path / "last.ckpt").read_bytes()
    state = SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    limit = len(before) // 2  # the kernel refuses to let a file grow beyond this, as a full disk would

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    (tmp_path / "settings.yaml").unlink()  # another run in the same folder: its first checkpoint cannot be written
    process = start([*words, "--epochs", "3"], preexec_fn=small_disk)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "cannot write the checkpoint" in stderr
    assert "the previous one is unchanged" in stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert not list(tmp_path.rglob("*.partial*"))
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt").keys() == state.keys()
