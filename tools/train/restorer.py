"""`regard train restorer`: a network that enlarges or cleans images.

The output folder holds settings.yaml, run.json (versions), metrics.csv (a row an epoch), last.ckpt (the last epoch,
and the weights of the best one), and when the run is finished curves.png, images.csv (a row an image), summary.json and
model/, the best weights as a folder that `regard restore`, `regard evaluate` and timm load.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ...datasets.restoration import RestorationData
from ...vision.backbones.hat import start_from
from ...vision.checkpoints import read_weights
from ...vision.restoration import MEASURES, ImageRestorer
from ...vision.restoration_start import start_as_interpolation
from ...vision.restorers import find_restorer
from ...whole_files import write_atomically
from ..run.fit import fit, optimizer_arguments
from ..run.run_folder import RunFolder, open_run
from ..settings import TrainRestorerSettings
from .backbone import build_backbone
from .export import export
from .restoration_plots import draw_restoration_curves

__all__ = ["print_table", "run", "table_of"]


def run(settings: TrainRestorerSettings) -> int:
    """Train, or resume a stopped run; then measure the best weights and export them.

    Args:
        settings: see `TrainRestorerSettings`.

    Raises:
        ValueError: a setting or the data is wrong, or the output folder is refused (see `regard.tools.run.run_folder`).
        OSError: the output folder cannot be written.
    """
    with open_run(settings) as folder:
        summary = folder.summary or _train(settings, folder)
    if folder.first:
        print_table(summary["images"], f"{folder.path}: held-out images, weights of epoch {summary['best_epoch']}")
    return 0


def _train(settings: TrainRestorerSettings, folder: RunFolder) -> dict[str, Any]:
    torch.manual_seed(settings.seed)
    model = build_restorer(settings)
    data = build_data(settings, model)
    data.setup()
    restorer = build_module(settings, model)
    fitted = fit(restorer, data, folder.path, settings, monitor=restorer.score)
    measured = data.val_dataset()
    rows = [{"image": measured.name(index), **row} for index, row in enumerate(restorer.rows)]
    summary = {
        "metrics": {name: fitted.metrics[f"test_{name}"] for name in MEASURES},
        "best_epoch": fitted.best_epoch,
        "images": rows,
        "training_images": len(data.train_images),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
    if folder.first:
        draw_restoration_curves(fitted.rows, folder.path / "curves.png")
        write_atomically(folder.path / "images.csv", table_of(rows))
        export(model, folder.path / "model")
        folder.finish(summary)
    return summary


def build_restorer(settings: TrainRestorerSettings) -> nn.Module:
    """The network of `settings`, with the weights that training starts from.

    Raises:
        ValueError: an unknown model or option, one that is not a restorer, or weights that do not fit.
        OSError: published weights cannot be fetched.
    """
    backbone = settings.backbone
    model = build_backbone(backbone)
    if not hasattr(model, "scale"):
        raise ValueError(f"--backbone.name {backbone.name} is not a restorer of images; try hat_tiny_x2 or hat_s_x2")
    if settings.start == "interpolation":
        start_as_interpolation(model)
    elif settings.start != "random":
        folder = find_restorer(settings.start)
        start_from(model, read_weights(settings.start if folder is None else folder / "model.safetensors"))
    return model


def build_module(settings: TrainRestorerSettings, model: nn.Module) -> ImageRestorer:
    """The Lightning module of `settings` around a network.

    Raises:
        ValueError: a setting is wrong.
    """
    return ImageRestorer(
        model,
        loss=settings.loss,
        halve_at=settings.halve_at,
        **optimizer_arguments(settings.optimizer),
        compile=settings.compile,
        grad_checkpointing=settings.grad_checkpointing,
    )


def build_data(settings: TrainRestorerSettings, model: nn.Module) -> RestorationData:
    """The data module of `settings` for a network."""
    return RestorationData(
        settings.data,
        lq=settings.lq,
        val=settings.val,
        val_lq=settings.val_lq,
        val_fraction=settings.val_fraction,
        scale=int(model.scale),  # type: ignore[arg-type]
        degradation=settings.degradation,
        degradation_options=settings.degradation_options,
        patch_px=settings.patch_px,
        crops_per_epoch=settings.crops,
        batch_size=settings.batch_size,
        channels=int(model.in_chans),  # type: ignore[arg-type]
        shrink_factors=settings.shrink,
        shuffle_channels=settings.recolour,
        enlarge_small=settings.enlarge,
        cached_images=settings.keep,
        cache_dir=settings.cache,
        workers=settings.workers,
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
    """Print the measures of every image, and their means."""
    table = Table("image", "PSNR Y (dB)", "SSIM Y", "PSNR RGB (dB)", "SSIM RGB", title=title)
    for row in rows:
        table.add_row(row["image"], *(f"{row[name]:.{2 if 'psnr' in name else 4}f}" for name in MEASURES))
    means = [sum(row[name] for row in rows) / len(rows) for name in MEASURES]
    table.add_row("mean", *(f"{mean:.{2 if index % 2 == 0 else 4}f}" for index, mean in enumerate(means)))
    Console().print(table)
