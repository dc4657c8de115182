"""`regard evaluate restorer`: PSNR and SSIM of every image of a folder, compared with a restoration without a network.

That is MATLAB's bicubic where images are enlarged, and the low-quality image itself where they are not. The output
folder holds settings.yaml, images.csv (a row an image) and summary.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ...datasets import UnreadableImageError
from ...datasets.restoration import WholeImages, build_degradation, open_hq_images, resize
from ...datasets.restoration.image_pairs import pair_up
from ...vision.image_quality import measure
from ...vision.restoration import MEASURES
from ...vision.restorers import load_restorer
from ...whole_files import write_atomically
from ..run.devices import choose_device
from ..run.run_folder import RunFolder, open_run
from ..settings import EvaluateRestorerSettings
from ..train.restorer import table_of

__all__ = ["enlarge", "print_gains", "restore_and_measure", "run"]


def run(settings: EvaluateRestorerSettings) -> int:
    """Measure, print and write.

    Args:
        settings: see `EvaluateRestorerSettings`.

    Returns:
        0, or 1 when unreadable images were skipped.

    Raises:
        ValueError: no such model or images, or images that have no partner.
        OSError: the output folder cannot be written.
    """
    with open_run(settings) as folder:
        summary = _measure(settings, folder)
    scale = summary["scale"]
    print_gains(summary["images"], f"{settings.model} on {settings.data}", "bicubic" if scale > 1 else "low quality")
    for image in summary["unreadable"]:
        sys.stderr.write(f"skipped: {image['image']}: {image['reason']}\n")
    return 1 if summary["unreadable"] else 0


def _measure(settings: EvaluateRestorerSettings, folder: RunFolder) -> dict[str, Any]:
    model = load_restorer(settings.model)
    scale, channels = int(model.scale), int(model.in_chans)  # type: ignore[arg-type]
    source = settings.data
    hq = open_hq_images(source, "test")
    options: dict[str, Any] = {"scale": scale, "channels": channels, "seed": settings.seed}
    if settings.lq is not None:
        images = WholeImages(pair_up(hq, open_hq_images(settings.lq), scale), **options)
    else:
        name = settings.degradation or ("bicubic" if scale > 1 else None)
        if name is None:
            raise ValueError(
                f"{settings.model} does not enlarge: give the low-quality images with --lq FOLDER, or degrade "
                "the images with --degradation noise or jpeg"
            )
        degradation = build_degradation(name, scale, settings.degradation_options)
        images = WholeImages(hq, degradation=degradation, **options)
    device = choose_device(settings.device)
    rows: list[dict[str, Any]] = []
    unreadable: list[dict[str, str]] = []
    for index in range(min(len(images), settings.limit or len(images))):
        pair = images[index]
        if isinstance(pair, UnreadableImageError):
            unreadable.append({"image": images.name(index), "reason": pair.reason})
            continue
        begun = time.monotonic()
        row = restore_and_measure(model.to(device), *pair, device=device)[1]
        rows.append({"image": images.name(index), **row})
        psnr = f"{row['psnr_y']:.2f} dB ({row['psnr_y'] - row['plain_psnr_y']:+.2f}, {time.monotonic() - begun:.1f} s)"
        sys.stderr.write(f"{index + 1}/{len(images)} {images.name(index)}: {psnr}\n")
    if not rows:
        raise ValueError(f"none of the {len(images)} images of {source} can be read: {unreadable[0]['reason']}")
    means = {name: sum(row[name] for row in rows) / len(rows) for name in list(rows[0])[1:]}
    border_px = scale if scale > 1 else 0
    summary = {
        "metrics": means,
        "images": rows,
        "unreadable": unreadable,
        "scale": scale,
        "border_px": border_px,
    }
    write_atomically(folder.path / "images.csv", table_of(rows))
    folder.finish(summary)
    return summary


def restore_and_measure(
    model: nn.Module, lq: Tensor, hq: Tensor, *, device: torch.device | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Restore one image, and measure it and what is made of it without a network.

    Args:
        model: the restorer.
        lq: low-quality image, (channels, height, width) in 0-1.
        hq: the true one.
        device: where to; by default where it is.

    Returns:
        The restored image, and `psnr_y`, `ssim_y`, `psnr`, `ssim` of it and with `plain_` before of the other.
    """
    border = hq.shape[1] // lq.shape[1] if hq.shape != lq.shape else 0
    with torch.inference_mode():
        restored = model(lq.unsqueeze(0).to(device or lq.device)).float().cpu()[0]
    found = measure(restored[None], hq[None], border)
    plain = measure(enlarge(lq, hq.shape[1:])[None], hq[None], border)
    row = {name: found[name].item() for name in MEASURES}
    return restored, row | {f"plain_{name}": plain[name].item() for name in MEASURES}


def enlarge(lq: Tensor, size: Sequence[int]) -> Tensor:
    """A low-quality image at the size of the true one: enlarged by MATLAB's bicubic, or as it is."""
    if tuple(lq.shape[1:]) == tuple(size):
        return lq
    enlarged = resize(lq.permute(1, 2, 0).numpy(), size=(int(size[0]), int(size[1])))
    return torch.from_numpy(enlarged).permute(2, 0, 1)


def print_gains(rows: Sequence[Mapping[str, Any]], title: str, plain: str) -> None:
    """Print what was measured of every image, and the means."""
    table = Table("image", f"PSNR Y {plain}", "restored", "gain (dB)", f"SSIM Y {plain}", "restored", title=title)
    names = ("plain_psnr_y", "psnr_y", "plain_ssim_y", "ssim_y")
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    for row in [*rows, {"image": "mean", **mean}]:
        before, after, before_ssim, after_ssim = (row[name] for name in names)
        numbers = [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}", f"{before_ssim:.4f}", f"{after_ssim:.4f}"]
        table.add_row(row["image"], *numbers)
    Console().print(table)
