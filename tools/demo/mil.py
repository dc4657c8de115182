"""`regard demo mil`: five heads on real images of breast tissue, and on rendered bags with a shortcut.

What the tables show is all that is claimed: 58 real bags and small rendered data sets rank heads on these data only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..run.recipes import read_recipe
from ..settings import DemoMilSettings, TrainMilSettings
from ..train.mil import job as train_mil

__all__ = ["run"]

#: Recipe -> what it is about.
RECIPES = {
    "ucsb_heads": "58 real H&E images of breast tissue (UCSB), two five-fold cross-validations",
    "shortcut_heads": "rendered bags whose training tumours show a pattern that most test tumours lack, eight seeds",
}


def run(settings: DemoMilSettings) -> int:
    """Train and compare the heads of both recipes.

    Args:
        settings: see `DemoMilSettings`.
    """
    torch.set_num_threads(1)  # heads this small only wait for each other on more
    out = Path(settings.out)
    for name, about in RECIPES.items():
        changes: dict[str, Any] = {"out": str(out / name), "seed": settings.seed, "accelerator": "cpu"}
        if settings.epochs is not None:
            changes["epochs"] = settings.epochs
        sys.stderr.write(f"Training heads on {about}\n")
        train_mil.run(read_recipe(name, TrainMilSettings, changes))
    Console().print("Plots: " + ", ".join(str(out / name / "heads.png") for name in RECIPES), soft_wrap=True)
    return 0
