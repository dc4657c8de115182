"""`regard benchmark restorers`: networks against their plain formulation, or with --overlaps tiles against the whole.

The first table has time and memory of one image. PlainHAT, like the authors' code, shifts windows in maps of any
size, but PlainHybridAttention does not where a map is one window; sides above a window are compared. The second has
how far an image restored in tiles is from the same restored at once, for overlaps of 0, 1, 2 ... windows.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import skimage.data
import timm
import torch
from torch import nn

from ...vision.attention.plain.hat_network import PlainHAT
from ...vision.backbones.hat import HAT
from ...vision.restorers import find_restorer, load_restorer
from ...vision.tiling import restore_strips
from ..run.devices import choose_device
from ..settings import BenchmarkRestorersSettings
from .profiler import interleaved, make_pass, multiply_adds, peak_bytes, quartiles, spread
from .report import report, torch_threads

__all__ = ["lines", "measure", "run"]


def run(settings: BenchmarkRestorersSettings) -> int:
    """Measure, print and write; the exit code is 0.

    Args:
        settings: see `BenchmarkRestorersSettings`.

    Raises:
        ValueError: a network or device is unknown, or the network is not a HAT.
    """
    choose_device(settings.device)
    with torch_threads(settings.threads):
        rows = measure(settings)
    report(settings, rows, lines(rows), f"{settings.device}, {settings.dtype}, batch 1, images")
    return 0


def measure(settings: BenchmarkRestorersSettings) -> list[dict[str, Any]]:
    """A row for every network and side, or for every network and overlap.

    Raises:
        ValueError: an unknown network, or one that is not a HAT.
    """
    rows = []
    for name in settings.restorers:
        model = _build(name).to(settings.device, getattr(torch, settings.dtype))
        for side in settings.sides:
            if settings.overlaps:
                rows += [_tiled(name, model, side, windows, settings) for windows in settings.overlaps]
            else:
                rows.append(_whole(name, model, side, settings))
    return rows


def _build(name: str) -> HAT:
    """A trained network if there is one, else random weights, which cost as much."""
    torch.manual_seed(0)
    if not find_restorer(name) and not timm.is_model(name):
        raise ValueError(f"no network {name!r}; regard list --kind models shows them, those with a PSNR restore")
    model: nn.Module = load_restorer(name) if find_restorer(name) else timm.create_model(name)
    if not isinstance(model, HAT):
        raise ValueError(f"{name} is not a HAT; only HAT has a plain formulation to compare with")
    return model.eval().requires_grad_(False)


def _whole(name: str, model: HAT, side: int, settings: BenchmarkRestorersSettings) -> dict[str, Any]:
    sys.stderr.write(f"{name} {side}x{side}\n")
    weight = next(model.parameters())
    x = torch.rand(1, model.in_chans, side, side, dtype=torch.float32).to(weight)
    passes = {"ours": make_pass(model, x, "forward")}
    if settings.plain:
        passes["plain"] = make_pass(PlainHAT(model), x, "forward")
    row: dict[str, Any] = {"restorer": name, "side": side, "multiply_adds": multiply_adds(model, x)}
    row["mb"] = {who: peak_bytes(once, settings.device) / 1e6 for who, once in passes.items()}
    seconds = interleaved(passes, settings.repeats, settings.device)
    row["ms"] = {who: 1e3 * statistics.median(taken) for who, taken in seconds.items()}
    row["times_faster"] = quartiles(seconds["plain"], seconds["ours"]) if "plain" in seconds else None
    return row


def _tiled(name: str, model: HAT, side: int, windows: int, settings: BenchmarkRestorersSettings) -> dict[str, Any]:
    """A photograph of side x side pixels in tiles of `settings.tile`."""
    sys.stderr.write(f"{name} {side}x{side} in tiles of {settings.tile}, overlap {windows} windows\n")
    image = photograph(side)[..., : model.in_chans]
    at_once, tiled = (
        torch.cat(list(restore_strips(model, image, tile=tile, overlap=overlap)), dim=1)
        for tile, overlap in ((side + model.window_size, 0), (settings.tile, windows * model.window_size))
    )
    difference = 255 * (tiled - at_once).abs()
    seam = 255 * ((tiled - at_once).diff(dim=2)).abs().max().item()
    return {
        "restorer": name,
        "side": side,
        "tile": settings.tile,
        "windows": windows,
        "overlap_px": windows * model.window_size,
        "max": difference.max().item(),
        "mean": difference.mean().item(),
        "seam": seam,
        "same": (at_once.mul(255).round() == tiled.mul(255).round()).float().mean().item(),
    }


def photograph(side: int) -> np.ndarray:
    """The astronaut of scikit-image, a square of it; larger ones repeat it in a mirror."""
    image = skimage.data.astronaut()
    return np.pad(image, ((0, max(0, side - 512)), (0, max(0, side - 512)), (0, 0)), mode="reflect")[:side, :side]


def lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Lines of the table, by heading."""
    if "windows" in rows[0]:
        return [
            {
                "restorer": row["restorer"],
                "image, tile px": f"{row['side']}, {row['tile']}",
                "overlap": f"{row['windows']} windows, {row['overlap_px']} px",
                "max difference, of 255": f"{row['max']:.3f}",
                "mean, of 255": f"{row['mean']:.5f}",
                "largest step, of 255": f"{row['seam']:.3f}",
                "the same in 8 bits": f"{100 * row['same']:.2f} %",
            }
            for row in rows
        ]
    found = []
    for row in rows:
        ms, mb = row["ms"], row["mb"]
        line = {
            "restorer": row["restorer"],
            "image": f"{row['side']}x{row['side']}",
            "Gmult-adds": f"{row['multiply_adds'] / 1e9:.1f}",
            "ms": f"{ms['ours']:.0f}",
            "MB": f"{mb['ours']:.0f}",
        }
        if "plain" in ms:
            line |= {"plain ms": f"{ms['plain']:.0f}", "plain MB": f"{mb['plain']:.0f}"}
            line |= {"times faster": spread(row["times_faster"]), "share of MB": f"{mb['ours'] / mb['plain']:.2f}"}
        found.append(line)
    return found
