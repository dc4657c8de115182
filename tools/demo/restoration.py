"""`regard demo restoration`: the embedded restorer on photographs that it never saw.

The folder holds for every photograph a figure (NAME.png) of the input, MATLAB's bicubic, the restored image and the
truth, with details of each; restored/ the results, and summary.json the measurements.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from ...datasets.restoration import WholeImages, build_degradation, open_hq_images
from ...vision.restorers import DEFAULT, load_restorer
from ...whole_files import write_atomically
from ..evaluate.restorer import enlarge, print_gains, restore_and_measure
from ..settings import DemoRestorationSettings
from ..train.restoration_plots import draw_comparison

__all__ = ["DETAILS", "run"]

#: Photograph that was not trained on -> row, column and side in pixels of two details.
DETAILS: dict[str, list[tuple[int, int, int]]] = {
    "astronaut": [(60, 170, 96), (350, 126, 96)],
    "cat": [(70, 150, 80), (140, 180, 80)],
    "coffee": [(212, 316, 96), (300, 470, 96)],
}


def run(settings: DemoRestorationSettings) -> int:
    """Shrink the photographs, restore them, measure and draw.

    Args:
        settings: see `DemoRestorationSettings`.
    """
    torch.set_num_threads(1)
    out = Path(settings.out)
    (out / "restored").mkdir(parents=True, exist_ok=True)
    model = load_restorer(DEFAULT)
    scale = int(model.scale)  # type: ignore[arg-type]
    names = list(DETAILS)
    images = WholeImages(
        open_hq_images(f"photographs:{','.join(names)}"), scale=scale, degradation=build_degradation("bicubic", scale)
    )
    rows = []
    for index, name in enumerate(names):
        lq, hq = images[index]
        restored, row = restore_and_measure(model, lq, hq)
        rows.append({"image": name, **row})
        Image.fromarray(_pixels(restored)).save(out / "restored" / f"{name}.png")
        shown = [lq, enlarge(lq, hq.shape[1:]), restored, hq]
        draw_comparison([_pixels(one) for one in shown], row, DETAILS[name], out / f"{name}.png")
    write_atomically(out / "summary.json", json.dumps({"model": DEFAULT, "images": rows}, indent=1))
    print_gains(rows, f"{DEFAULT} on photographs it never saw", "bicubic")
    Console().print("Images: " + ", ".join(str(out / f"{name}.png") for name in names), soft_wrap=True)
    return 0


def _pixels(image: Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
