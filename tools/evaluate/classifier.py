"""`regard evaluate classifier`: measure a trained image classifier on any data with its classes.

The output folder holds settings.yaml, predictions.csv (a row an image), per_class.csv, confusion.png and summary.json.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import timm
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from ...datasets.labelled_images import LabelledImages
from ...vision import ImageClassifier
from ...whole_files import write_atomically
from ..run.fit import build_trainer, quiet_lightning
from ..run.run_folder import RunFolder, open_run
from ..settings import EvaluateClassifierSettings
from ..train.classifier import build_data, check_size, image_config, print_summary, write_tables

__all__ = ["run"]


def run(settings: EvaluateClassifierSettings) -> int:
    """Measure, print and write.

    Args:
        settings: see `EvaluateClassifierSettings`.

    Returns:
        0, or 1 when unreadable images were skipped.

    Raises:
        ValueError: no model in the folder, or its classes are not those of the data.
        OSError: the output folder cannot be written.
    """
    with open_run(settings) as folder:
        summary = _measure(settings, folder)
    print_summary(summary, f"{settings.model} on {settings.data} ({settings.split})")
    return 1 if summary["unreadable"] else 0


def _measure(settings: EvaluateClassifierSettings, folder: RunFolder) -> dict[str, Any]:
    model, classes = load_model(Path(settings.model))
    config = image_config(settings.images, model, {})
    check_size(model, config["input_size"])
    source = settings.data
    data = build_data(source, settings.images, config, batch_size=settings.batch_size)
    data.prepare_data()
    data.setup()
    if data.classes != classes:
        raise ValueError(
            f"{settings.model} has the classes {_few(classes)}, {source} has {_few(data.classes)}; "
            "measure it on data with the same class names"
        )
    classifier = ImageClassifier(model, multi_label=data.multi_label)
    predictions = _Predictions()
    trainer = build_trainer([predictions], accelerator=settings.accelerator, devices="1", precision=settings.precision)
    with quiet_lightning():
        trainer.test(classifier, data.evaluation_dataloader(settings.split), verbose=False)
    images = data.splits[settings.split]
    write_atomically(folder.path / "predictions.csv", predictions.table(images, data.multi_label))
    write_tables(folder.path, f"{settings.model} on {source}", classifier.report, classes)
    unreadable = [{"split": part, "path": path, "reason": why} for part, path, why in data.unreadable]
    summary = {"metrics": classifier.report["metrics"], "images": len(images), "unreadable": unreadable}
    folder.finish(summary)
    return summary


def load_model(folder: Path) -> tuple[nn.Module, list[str]]:
    """A model that `regard train` exported, and the names of its classes.

    Args:
        folder: the exported folder, or the one above it.

    Raises:
        ValueError: there is no such model, or its files are damaged.
    """
    found = next((path for path in (folder, folder / "model") if (path / "config.json").is_file()), None)
    if found is None:
        raise ValueError(f"{folder} holds no model: neither config.json nor model/config.json is there")
    try:
        config = json.loads((found / "config.json").read_text(encoding="utf-8"))
        if "text_config" in config:
            raise ValueError("it is a vision-language model; use regard evaluate lvlm")
        classes = config.get("label_names")
        model = timm.create_model(f"local-dir:{found}", pretrained=True)
    except Exception as error:  # damaged JSON and weights raise whatever their readers raise
        raise ValueError(
            f"the model in {found} cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    if not classes:
        raise ValueError(f"{found}/config.json has no label_names; export the model with `regard train`")
    return model, classes


class _Predictions(Callback):
    """Keeps the logits of a test."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def on_test_batch_end(self, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
        """Keep a batch."""
        self.logits.append(outputs.float().cpu())

    def table(self, images: LabelledImages, multi_label: bool) -> str:
        """CSV: image, true class, predicted class and its probability; or a probability for each of several labels."""
        logits = torch.cat(self.logits)
        file = io.StringIO()
        rows = csv.writer(file, lineterminator="\n")
        if multi_label:
            rows.writerow(["image", "true", *images.classes])
            for index, row in enumerate(logits.sigmoid().tolist()):
                true = "|".join(name for name, on in zip(images.classes, images.targets[index], strict=True) if on)
                rows.writerow([images.name(index), true, *(f"{value:.6f}" for value in row)])
        else:
            rows.writerow(["image", "true", "predicted", "probability"])
            best = logits.softmax(dim=-1).max(dim=-1)
            for index, (value, position) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                true, predicted = images.classes[images.targets[index]], images.classes[position]
                rows.writerow([images.name(index), true, predicted, f"{value:.6f}"])
        return file.getvalue()


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
