"""`regard train`: an image classifier, from images on disk to an exported model folder.

Heads on bags are in `train_bags`, restorers in `train_restoration`.

The output folder holds settings.yaml, run.json (versions), metrics.csv (a row an epoch), last.ckpt and best.ckpt,
curves.png, and when the run is done confusion.png, per_class.csv, summary.json and model/, the best weights as a
folder (model.safetensors and config.json) that timm loads.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import timm
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console
from rich.table import Table
from torch import nn

from ...datasets.classification import ClassificationData
from ...vision import ImageClassifier, create_model
from ...vision.sparsifiner_training import SparsifinerClassifier
from ..run.run_folder import finished, first_process, open_folder
from ..settings import BackboneSettings, ImageSettings, TrainSettings
from . import restorer as train_restoration
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
    write_atomically,
)
from .export import export
from .mil import job as train_bags
from .plots import draw_confusion, draw_curves

__all__ = ["run"]

#: How a model learns -> the Lightning module that does it.
METHODS: dict[str, type[ImageClassifier]] = {"supervised": ImageClassifier, "sparsifiner": SparsifinerClassifier}


def run(settings: TrainSettings) -> int:
    """Train, or go on where a stopped run was; then measure the best weights and export them.

    Args:
        settings: see `TrainSettings`.

    Returns:
        0, or 1 when unreadable images were left out.

    Raises:
        ValueError: a setting is wrong, or the output folder belongs to a run with other settings.
        OSError: the output folder cannot be written.
    """
    if settings.bags is not None:
        return train_bags.run(settings)
    if settings.restoration is not None:
        return train_restoration.run(settings)
    out = Path(settings.out)
    summary = finished(settings)
    if summary is None:
        open_folder(settings)
        summary = _train(settings, out)
    if first_process():
        print_summary(summary, f"{out}: test images, weights of epoch {summary['best_epoch']}")
    return 1 if summary["unreadable"] else 0


def _train(settings: TrainSettings, out: Path) -> dict[str, Any]:
    with torch.device("meta"):
        blank = build_model(replace(settings.backbone, pretrained=False, weights=None), classes=2)
    config = image_config(settings.images, blank, settings.backbone.options)
    augmentation = asdict(settings.augmentation)
    on_batches = {key: augmentation.pop(key) for key in ("mixup", "cutmix", "label_smoothing")}
    data = build_data(
        settings.data,
        settings.images,
        config,
        batch_size=settings.batch_size,
        seed=settings.seed,
        augmentation=augmentation,
    )
    data.prepare_data()
    data.setup()
    torch.manual_seed(settings.seed)
    model = build_model(settings.backbone, data.num_classes)
    check_size(model, config["input_size"])
    chosen = asdict(settings.optimizer)
    clip_grad = chosen.pop("clip_grad")
    classifier = build_classifier(
        settings,
        model,
        multi_label=data.multi_label,
        optimizer=chosen.pop("name"),
        **chosen,
        **on_batches,
        channels_last=settings.channels_last,
        compile=settings.compile,
        grad_checkpointing=settings.grad_checkpointing,
    )
    monitor, mode = ("val_loss", "min") if settings.best_by == "loss" else (classifier.score, "max")
    every_epoch: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = BestCheckpoint(out, "best", monitor=monitor, mode=mode, **every_epoch)
    callbacks: list[Callback] = [EpochSeed(settings.seed), EpochTable(out / "metrics.csv"), best, LastCheckpoint(out)]
    callbacks += [RichProgressBar()] if sys.stderr.isatty() else [EpochLine()]
    if settings.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    if settings.early_stop is not None:
        callbacks.append(EarlyStopping(monitor, mode=mode, patience=settings.early_stop))
    trainer = build_trainer(
        callbacks,
        max_epochs=settings.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=settings.strategy,
        precision=settings.precision,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=clip_grad,
        limit_train_batches=settings.limit_batches,
        limit_val_batches=settings.limit_batches,
        limit_test_batches=settings.limit_batches,
        logger=_loggers(settings),
        enable_checkpointing=True,
    )
    checkpoint = out / "last.ckpt"
    with quiet_lightning():
        if not _stopped_early(checkpoint):
            resume = str(checkpoint) if checkpoint.exists() else None
            trainer.fit(classifier, datamodule=data, ckpt_path=resume, weights_only=True)
        classifier.load_state_dict(SafeCheckpointIO().load_checkpoint(out / "best.ckpt")["state_dict"])
        trainer.test(classifier, datamodule=data, verbose=False)
    summary = {
        "metrics": classifier.report["metrics"],
        "best_epoch": _best_epoch(out / "metrics.csv", monitor, mode),
        "classes": data.classes,
        "images": {split: len(images) for split, images in data.splits.items()},
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "unreadable": [{"split": split, "path": path, "reason": reason} for split, path, reason in data.unreadable],
    }
    if trainer.is_global_zero:
        name = settings.backbone.attention or "its own attention"
        write_tables(out, f"{settings.backbone.name} with {name}", classifier.report, data.classes)
        draw_curves({name: read_table(out / "metrics.csv")}, classifier.score, out / "curves.png")
        export(model, out / "model", config=config, label_names=data.classes)
        write_atomically(out / "summary.json", json.dumps(summary, indent=1))
    return summary


def image_config(images: ImageSettings, model: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """How the model gets its images: timm's input_size, mean, std, interpolation and crop_pct.

    Args:
        images: what is set there wins.
        model: says the rest.
        options: arguments that made the model; in_chans and img_size are heeded.
    """
    wanted = timm.data.resolve_model_data_config(model)
    channels = options.get("in_chans", wanted["input_size"][0])
    size = images.size or options.get("img_size") or wanted["input_size"][1:]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "input_size": (channels, height, width),
        "mean": tuple(images.mean or wanted["mean"][:channels]),
        "std": tuple(images.std or wanted["std"][:channels]),
        "interpolation": images.interpolation or wanted["interpolation"],
        "crop_pct": images.crop_pct or wanted["crop_pct"],
    }


def build_data(data: str, images: ImageSettings, config: Mapping[str, Any], **own: Any) -> ClassificationData:
    """The data module of `data`, read as `images` and `config` say; `own` goes to `ClassificationData`."""
    return ClassificationData(
        data,
        image_size=config["input_size"][1:],
        channels=config["input_size"][0],
        mean=config["mean"],
        std=config["std"],
        preprocessing={key: config[key] for key in ("interpolation", "crop_pct")},
        workers=images.workers,
        val_fraction=images.val_fraction,
        test_fraction=images.test_fraction,
        root=images.root,
        download=images.download,
        skip_unreadable=images.skip_unreadable,
        **own,
    )


def build_model(settings: BackboneSettings, classes: int) -> nn.Module:
    """The model of `settings` with a head for `classes`.

    Raises:
        ValueError: an unknown model, attention or option, or weights that do not fit.
        OSError: published weights cannot be fetched.
    """
    try:
        return create_model(
            settings.name,
            attention=settings.attention,
            attention_options=settings.attention_options or None,
            attention_stages=settings.attention_stages,
            pretrained=settings.pretrained,
            weights=settings.weights,
            num_classes=classes,
            **settings.options,
        )
    except URLError as error:
        raise OSError(
            f"the published weights of {settings.name} cannot be fetched ({error.reason}); bring the file from "
            "elsewhere and give it as --backbone.weights FILE, or start fresh with --backbone.pretrained false"
        ) from error
    except TypeError as error:  # an argument that the model's constructor does not have
        raise ValueError(f"--backbone.options {settings.options} do not suit {settings.name}: {error}") from error


def build_classifier(settings: TrainSettings, model: nn.Module, **options: Any) -> ImageClassifier:
    """The Lightning module of `settings.method` around `model`; `options` are those that every method has.

    Raises:
        ValueError: the method has no such option, or does not suit the model.
    """
    method, own = METHODS[settings.method], settings.method_options
    shared = inspect.signature(ImageClassifier).parameters
    known = [name for name in inspect.signature(method).parameters if name not in shared and name != "classifier"]
    unknown = [name for name in own if name not in known]
    if unknown:
        hint = f"its options: {', '.join(known)}" if known else "it has none"
        raise ValueError(f"--method {settings.method} has no option {unknown[0]!r}; {hint}")
    if settings.method == "sparsifiner" and not (settings.backbone.pretrained or settings.backbone.weights):
        sys.stderr.write("the teacher is untrained: give --backbone.weights FILE or --backbone.pretrained true\n")
    return method(model, **options, **own)


def check_size(model: nn.Module, size: tuple[int, int, int]) -> None:
    """Try one blank image, so that a size the model cannot take is named before the first epoch.

    Args:
        model: any classifier.
        size: channels, height and width.

    Raises:
        ValueError: the model does not take it.
    """
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the model does not take images of {' x '.join(map(str, size))} (channels, height, width): {reason}. "
            "Set --images.size, or for a ViT --backbone.options.img_size and patch_size, and in_chans for grey images"
        ) from error
    finally:
        model.train()


def _loggers(settings: TrainSettings) -> list[Logger] | bool:
    loggers: list[Logger] = []
    for name in settings.loggers:
        try:
            if name == "tensorboard":
                loggers.append(TensorBoardLogger(settings.out, name="tensorboard", version=""))
            else:
                loggers.append(WandbLogger(project="regard", save_dir=settings.out, config=asdict(settings)))
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f'--loggers {name} needs: pip install "regard[{name}]"') from error
    return loggers or False


def _stopped_early(checkpoint: Path) -> bool:
    """Whether training had ended by early stopping when this was written."""
    if not checkpoint.exists():
        return False
    states = SafeCheckpointIO().load_checkpoint(checkpoint)["callbacks"]
    return any(name.startswith("EarlyStopping") and state["stopped_epoch"] for name, state in states.items())


def _best_epoch(table: Path, monitor: str, mode: str) -> int:
    """The last of the best epochs, counted from 1."""
    sign = -1 if mode == "min" else 1
    return int(max(read_table(table), key=lambda row: (sign * row[monitor], row["epoch"]))["epoch"]) + 1


def write_tables(out: Path, title: str, report: Mapping[str, Any], classes: list[str]) -> None:
    """Write per_class.csv and confusion.png of a measured classifier."""
    columns = [name for name, values in report.items() if name not in ("metrics", "confusion")]
    lines = [",".join(["class", *columns])]
    for index, name in enumerate(classes):
        quoted = '"' + name.replace('"', '""') + '"'
        lines.append(",".join([quoted, *(f"{report[column][index]:.6f}" for column in columns)]))
    write_atomically(out / "per_class.csv", "\n".join(lines) + "\n")
    counts, columns = report["confusion"], classes
    if np.ndim(counts) == 3:  # several labels: for each class a table of its own, here as one row
        counts = [[*absent, *present] for absent, present in counts]
        columns = ["absent, not found", "absent, found", "present, missed", "present, found"]
    draw_confusion(counts, classes, columns, title, out / "confusion.png")


def print_summary(summary: Mapping[str, Any], title: str) -> None:
    """Print the metrics to stdout and the images that were left out to stderr."""
    table = Table("metric", "value", title=title)
    for name, value in summary["metrics"].items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if name == "loss" else f"{100 * value:.2f} %")
    Console().print(table)
    for image in summary["unreadable"]:
        sys.stderr.write(f"left out: {image['path']}: {image['reason']}\n")
    if summary["unreadable"]:
        sys.stderr.write(f"{len(summary['unreadable'])} unreadable images were left out\n")
