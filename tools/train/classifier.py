"""`regard train classifier`: an image classifier, from images on disk to an exported model folder.

The output folder holds settings.yaml, run.json (versions), metrics.csv (a row an epoch), last.ckpt (the last epoch,
and the weights of the best one), and when the run is finished curves.png, confusion.png, per_class.csv, summary.json
and model/, the best weights as a folder (model.safetensors and config.json) that timm loads.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ...datasets.classification import ClassificationData
from ...vision import ImageClassifier
from ...vision.sparsifiner_training import SparsifinerClassifier
from ...whole_files import write_atomically
from ..run.fit import fit, optimizer_arguments
from ..run.run_folder import RunFolder, open_run
from ..settings import ImageSettings, TrainClassifierSettings
from ..settings.train_classifier import ClassifierBackboneSettings
from .backbone import build_backbone
from .export import export
from .plots import draw_confusion, draw_curves

__all__ = ["run"]

#: How a model learns -> the Lightning module that does it.
METHODS: dict[str, type[ImageClassifier]] = {"supervised": ImageClassifier, "sparsifiner": SparsifinerClassifier}


def run(settings: TrainClassifierSettings) -> int:
    """Train, or resume a stopped run; then measure the best weights and export them.

    Args:
        settings: see `TrainClassifierSettings`.

    Returns:
        0, or 1 when unreadable images were skipped.

    Raises:
        ValueError: a setting is wrong, or the output folder is refused (see `regard.tools.run.run_folder`).
        OSError: the output folder cannot be written.
    """
    with open_run(settings) as folder:
        summary = folder.summary or _train(settings, folder)
    if folder.first:
        print_summary(summary, f"{folder.path}: test images, weights of epoch {summary['best_epoch']}")
    return 1 if summary["unreadable"] else 0


def _train(settings: TrainClassifierSettings, folder: RunFolder) -> dict[str, Any]:
    with torch.device("meta"):
        empty = build_model(replace(settings.backbone, pretrained=False, weights=None), classes=2)
    config = image_config(settings.images, empty, settings.backbone.options)
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
    classifier = build_classifier(
        settings,
        model,
        multi_label=data.multi_label,
        **optimizer_arguments(settings.optimizer),
        **on_batches,
        channels_last=settings.channels_last,
        compile=settings.compile,
        grad_checkpointing=settings.grad_checkpointing,
    )
    monitor, mode = ("val_loss", "min") if settings.best_by == "loss" else (classifier.score, "max")
    fitted = fit(classifier, data, folder.path, settings, monitor=monitor, mode=mode)
    summary = {
        "metrics": classifier.report["metrics"],
        "best_epoch": fitted.best_epoch,
        "classes": data.classes,
        "images": {split: len(images) for split, images in data.splits.items()},
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "unreadable": [{"split": split, "path": path, "reason": reason} for split, path, reason in data.unreadable],
    }
    if folder.first:
        name = settings.backbone.attention or "its own attention"
        write_tables(folder.path, f"{settings.backbone.name} with {name}", classifier.report, data.classes)
        draw_curves({name: fitted.rows}, classifier.score, folder.path / "curves.png")
        export(model, folder.path / "model", config=config, label_names=data.classes)
        folder.finish(summary)
    return summary


def image_config(images: ImageSettings, model: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """How the model needs its images: timm's input_size, mean, std, interpolation and crop_pct.

    Args:
        images: what is set there has precedence.
        model: has the rest.
        options: arguments that made the model; in_chans and img_size count.
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
    """The data module of `data`, read according to `images` and `config`; `own` goes to `ClassificationData`."""
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


def build_model(settings: ClassifierBackboneSettings, classes: int) -> nn.Module:
    """The model of `settings` with a head for `classes`.

    Raises:
        ValueError: an unknown model, attention or option, or weights that do not fit.
        OSError: published weights cannot be fetched.
    """
    return build_backbone(
        settings,
        attention=settings.attention,
        attention_options=settings.attention_options or None,
        attention_stages=settings.attention_stages,
        num_classes=classes,
    )


def build_classifier(settings: TrainClassifierSettings, model: nn.Module, **options: Any) -> ImageClassifier:
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
    """Try one empty image, so that a size that the model does not accept is named before the first epoch.

    Args:
        model: any classifier.
        size: channels, height and width.

    Raises:
        ValueError: the model does not accept it.
    """
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the model does not accept images of {' x '.join(map(str, size))} (channels, height, width): {reason}. "
            "Set --images.size, or for a ViT --backbone.options.img_size and patch_size, and in_chans for grey images"
        ) from error
    finally:
        model.train()


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
    """Print the metrics to stdout and the skipped images to stderr."""
    table = Table("metric", "value", title=title)
    for name, value in summary["metrics"].items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if name == "loss" else f"{100 * value:.2f} %")
    Console().print(table)
    for image in summary["unreadable"]:
        sys.stderr.write(f"skipped: {image['path']}: {image['reason']}\n")
    if summary["unreadable"]:
        sys.stderr.write(f"{len(summary['unreadable'])} unreadable images were skipped\n")
