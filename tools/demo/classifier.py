"""`regard demo classifier`: a small ViT with a swapped attention and its softmax twin, on handwritten digits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..run.callbacks import read_table
from ..run.recipes import read_recipe
from ..settings import DemoClassifierSettings, TrainClassifierSettings
from ..train import classifier as train
from ..train.plots import draw_curves

__all__ = ["run"]


def run(settings: DemoClassifierSettings) -> int:
    """Train both models with one recipe, then print and draw them side by side.

    Args:
        settings: see `DemoClassifierSettings`.
    """
    torch.set_num_threads(1)  # models this small only wait for each other on more
    out = Path(settings.out)
    summaries = {}
    for attention in dict.fromkeys([settings.attention, "softmax"]):
        changes: dict[str, Any] = {
            "backbone.attention": attention,
            "out": str(out / attention),
            "seed": settings.seed,
        }
        if settings.epochs is not None:
            changes["epochs"] = settings.epochs
        recipe = read_recipe("digits_vit_van", TrainClassifierSettings, changes)
        sys.stderr.write(f"Training {recipe.backbone.name} with {attention} on the digits of scikit-learn\n")
        train.run(recipe)
        summaries[attention] = json.loads((out / attention / "summary.json").read_text(encoding="utf-8"))
    draw_curves({name: read_table(out / name / "metrics.csv") for name in summaries}, "val_top1", out / "curves.png")
    table = Table("attention", "accuracy", "macro F1", "calibration error", "parameters", title="Held-out digits")
    for name, summary in summaries.items():
        metrics = summary["metrics"]
        shares = [f"{100 * metrics[key]:.2f} %" for key in ("top1", "macro_f1", "calibration_error")]
        table.add_row(name, *shares, f"{summary['parameters']:,}")
    console = Console()
    console.print(table)
    plots = [out / "curves.png", *(out / name / "confusion.png" for name in summaries)]
    console.print("Plots: " + ", ".join(map(str, plots)), soft_wrap=True)
    return 0
