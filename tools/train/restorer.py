"""`regard train` with `restoration`: a network that undoes what spoilt images.

The output folder holds settings.yaml, run.json (versions), metrics.csv (a row an epoch), last.ckpt and best.ckpt,
curves.png, and when the run is done images.csv (a row an image), summary.json and model/, the best weights as a
folder that `regard restore`, `regard evaluate` and timm load.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, RichProgressBar
from rich.console import Console
from rich.table import Table
from torch import nn

from ...datasets.restoration import RestorationData
from ...vision import create_model
from ...vision.backbones.hat import start_from
from ...vision.checkpoints import read_weights
from ...vision.restoration import MEASURES, ImageRestorer
from ...vision.restoration_start import start_as_interpolation
from ...vision.restorers import find_restorer
from ...whole_files import write_atomically
from ..run.run_folder import finished, first_process, open_folder
from ..settings import TrainSettings
from .callbacks import (
    BestCheckpoint,
    EpochLine,
    EpochSeed,
    EpochTable,
    LastCheckpoint,
    SafeCheckpointIO,
    build_trainer,
    quiet_lightning,
    read_table,
)
from .export import export
from .restoration_plots import draw_restoration_curves

__all__ = ["print_table", "run", "table_of"]


def run(settings: TrainSettings) -> int:
    """Train, or go on where a stopped run was; then measure the best weights and export them.

    Args:
        settings: with `restoration`.

    Raises:
        ValueError: a setting or the data is wrong, or the output folder belongs to a run with other settings.
        OSError: the output folder cannot be written.
    """
    check(settings)
    out = Path(settings.out)
    summary = finished(settings)
    if summary is None:
        summary = _train(settings, out)
    if first_process():
        print_table(summary["images"], f"{out}: images not learnt from, weights of epoch {summary['best_epoch']}")
    return 0


def check(settings: TrainSettings) -> None:
    """See that nothing is set that only classifiers have.

    Raises:
        ValueError: something is; it is named.
    """
    plain = TrainSettings()
    others = ("augmentation", "method", "method_options", "best_by", "channels_last")
    given = next((name for name in others if getattr(settings, name) != getattr(plain, name)), None)
    if given is None and settings.optimizer.layer_decay is not None:
        given = "optimizer.layer_decay"
    if given is None and settings.backbone.attention is not None:
        given = "backbone.attention"
    if given is not None:
        raise ValueError(f"--{given} is for classifiers; a restorer has none of it, leave it out")


def _train(settings: TrainSettings, out: Path) -> dict[str, Any]:
    torch.manual_seed(settings.seed)
    model = build_restorer(settings)
    data = build_data(settings, model)
    data.setup()
    open_folder(settings)
    restorer = build_module(settings, model)
    monitor = restorer.score
    best = BestCheckpoint(
        out, "best", monitor=monitor, mode="max", save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [EpochSeed(settings.seed), EpochTable(out / "metrics.csv"), best, LastCheckpoint(out)]
    callbacks += [RichProgressBar()] if sys.stderr.isatty() else [EpochLine()]
    if settings.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    if settings.early_stop is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=settings.early_stop))
    trainer = build_trainer(
        callbacks,
        max_epochs=settings.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=settings.strategy,
        precision=settings.precision,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.optimizer.clip_grad,
        limit_train_batches=settings.limit_batches,
        limit_val_batches=settings.limit_batches,
        limit_test_batches=settings.limit_batches,
        enable_checkpointing=True,
    )
    checkpoint = out / "last.ckpt"
    with quiet_lightning():
        resume = str(checkpoint) if checkpoint.exists() else None
        trainer.fit(restorer, datamodule=data, ckpt_path=resume, weights_only=True)
        restorer.load_state_dict(SafeCheckpointIO().load_checkpoint(out / "best.ckpt")["state_dict"])
        trainer.test(restorer, datamodule=data, verbose=False)
    measured = data.val_dataset()
    rows = [{"image": measured.name(place), **row} for place, row in enumerate(restorer.rows)]
    table = read_table(out / "metrics.csv")
    summary = {
        "metrics": {name: trainer.callback_metrics[f"test_{name}"].item() for name in MEASURES},
        "best_epoch": int(max(table, key=lambda row: (row[monitor], row["epoch"]))["epoch"]) + 1,
        "images": rows,
        "learnt_from": len(data.train_images),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
    if trainer.is_global_zero:
        draw_restoration_curves(table, out / "curves.png")
        write_atomically(out / "images.csv", table_of(rows))
        export(model, out / "model")
        write_atomically(out / "summary.json", json.dumps(summary, indent=1))
    return summary


def build_restorer(settings: TrainSettings) -> nn.Module:
    """The network of `settings`, with the weights that training starts from.

    Raises:
        ValueError: an unknown model or option, one that restores nothing, or weights that do not fit.
        OSError: published weights cannot be fetched.
    """
    backbone, chosen = settings.backbone, settings.restoration
    assert chosen is not None
    try:
        model = create_model(
            backbone.name, pretrained=backbone.pretrained, weights=backbone.weights, **backbone.options
        )
    except URLError as error:
        raise OSError(f"the published weights of {backbone.name} cannot be fetched ({error.reason})") from error
    except TypeError as error:
        raise ValueError(f"--backbone.options {backbone.options} do not suit {backbone.name}: {error}") from error
    if not hasattr(model, "scale"):
        raise ValueError(f"--backbone.name {backbone.name} restores no images; try hat_tiny_x2 or hat_s_x2")
    if chosen.start == "interpolation":
        start_as_interpolation(model)
    elif chosen.start != "random":
        folder = find_restorer(chosen.start)
        start_from(model, read_weights(chosen.start if folder is None else folder / "model.safetensors"))
    return model


def build_module(settings: TrainSettings, model: nn.Module) -> ImageRestorer:
    """The Lightning module of `settings` around a network.

    Raises:
        ValueError: a setting is wrong.
    """
    assert settings.restoration is not None
    optimizer = asdict(settings.optimizer)
    optimizer.pop("clip_grad")
    optimizer.pop("layer_decay")
    return ImageRestorer(
        model,
        loss=settings.restoration.loss,
        halve_at=settings.restoration.halve_at,
        optimizer=optimizer.pop("name"),
        **optimizer,
        compile=settings.compile,
        grad_checkpointing=settings.grad_checkpointing,
    )


def build_data(settings: TrainSettings, model: nn.Module) -> RestorationData:
    """The data module of `settings` for a network."""
    assert settings.restoration is not None
    chosen = asdict(settings.restoration)
    for own in ("loss", "halve_at", "start"):
        chosen.pop(own)
    names = {
        "low": "lq", "val_low": "val_lq", "options": "degradation_options", "crops": "crops_per_epoch",
        "shrink": "shrink_factors", "enlarge": "enlarge_small", "recolour": "shuffle_channels",
        "cache": "cache_dir", "keep": "cached_images",
    }  # fmt: skip
    chosen = {names.get(name, name): value for name, value in chosen.items()}
    return RestorationData(
        settings.data,
        **chosen,
        val_fraction=settings.images.val_fraction,
        scale=int(model.scale),  # type: ignore[arg-type]
        channels=int(model.in_chans),  # type: ignore[arg-type]
        batch_size=settings.batch_size,
        workers=settings.images.workers,
        seed=settings.seed,
    )


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    )
    return file.getvalue()


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print what was measured of every image, and the means."""
    table = Table("image", "PSNR Y (dB)", "SSIM Y", "PSNR RGB (dB)", "SSIM RGB", title=title)
    for row in rows:
        table.add_row(row["image"], *(f"{row[name]:.{2 if 'psnr' in name else 4}f}" for name in MEASURES))
    means = [sum(row[name] for row in rows) / len(rows) for name in MEASURES]
    table.add_row("mean", *(f"{mean:.{2 if place % 2 == 0 else 4}f}" for place, mean in enumerate(means)))
    Console().print(table)
