"""`regard benchmark hosts`: whole models, with every block in every host, compared with the host as it is.

A host and all its twins take turns, so that the ratios hold whatever else the machine does. GMACs are multiply-adds
of one inference, counted as they are executed (see `regard.tools.benchmark.profiler`), half of what is
called FLOPs elsewhere. A training pass is forward and backward without the optimiser's step. Weights are random.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...vision import create_model
from ..run.devices import choose_device
from ..settings import BenchmarkHostsSettings
from .profiler import interleaved, make_pass, multiply_adds, peak_bytes, quartiles, spread
from .report import report, torch_threads

__all__ = ["lines", "measure", "run"]


def run(settings: BenchmarkHostsSettings) -> int:
    """Measure, print and write; the exit code is 0.

    Args:
        settings: see `BenchmarkHostsSettings`.

    Raises:
        ValueError: a host, block, option or device is unknown, or they do not fit each other.
    """
    choose_device(settings.device)
    with torch_threads(settings.threads):
        rows = measure(settings)
    conditions = f"{settings.device}, {settings.dtype}, batch {settings.batch}, {settings.image_size} px"
    report(settings, rows, lines(rows, settings), conditions)
    return 0


def measure(settings: BenchmarkHostsSettings) -> list[dict[str, Any]]:
    """A row for every host as it is, and with each block.

    Raises:
        ValueError: a host or block is unknown, they do not fit each other, or options are out of range.
    """
    names = [settings.base] if settings.base else []
    pairs = [(host, block) for host in [*names, *settings.hosts] for block in (None, *settings.blocks)]
    for host, block in pairs:  # what cannot be built is reported before hours are spent
        _build(host, block, settings)
    rows = []
    for host in settings.hosts:
        base = (settings.base or host, None)
        members = dict.fromkeys([base, *((host, block) for block in (None, *settings.blocks))])
        rows += _measure_together(list(members), settings)
    return rows


def lines(rows: Sequence[dict[str, Any]], settings: BenchmarkHostsSettings) -> list[dict[str, str]]:
    """The lines of the table, by heading; times are of one image, ratios are to the base."""
    return [_line(row, settings) for row in rows]


def _measure_together(
    members: Sequence[tuple[str, str | None]], settings: BenchmarkHostsSettings
) -> list[dict[str, Any]]:
    """Rows of the base, which is the first, and of what is compared with it."""
    torch.manual_seed(0)
    x = torch.randn(settings.batch, 3, settings.image_size, settings.image_size)
    x = x.to(settings.device, getattr(torch, settings.dtype))
    models = {f"{host} {block}": _build(host, block, settings) for host, block in members}
    rows: dict[str, dict[str, Any]] = {}
    for (who, model), (host, block) in zip(models.items(), members, strict=True):
        sys.stderr.write(f"{host} {block or 'as it is'}: built\n")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        figures: dict[str, Any] = {"parameters": parameters, "multiply_adds": multiply_adds(model, x[:1])}
        rows[who] = {"host": host, "block": block, **figures, "mb": {}, "ms_per_image": {}, "ratio": {}, "share": {}}
    for what in settings.passes:
        sys.stderr.write(f"{members[0][0]}: {what}\n")
        passes = {who: make_pass(model, x, what) for who, model in models.items()}
        seconds = interleaved(passes, settings.repeats, settings.device)
        mb = {who: peak_bytes(once, settings.device) / 1e6 for who, once in passes.items()}
        first = next(iter(passes))
        for who, row in rows.items():
            row["ms_per_image"][what] = 1e3 * statistics.median(seconds[who]) / settings.batch
            row["ratio"][what] = quartiles(seconds[who], seconds[first])
            row["mb"][what] = mb[who]
            row["share"][what] = mb[who] / mb[first]
    return list(rows.values())


def _build(host: str, block: str | None, settings: BenchmarkHostsSettings) -> nn.Module:
    """A host, with a block if there is one, for the size of image in use."""
    options = settings.host_options.get(host, {})
    if block:
        options = options | {"attention": block, "attention_options": settings.options.get(block)}
    model = create_model(host, **options)
    resize = getattr(model, "set_input_size", None)
    if resize:  # a ViT or another with a fixed size
        resize(img_size=settings.image_size)
    return model.to(settings.device, getattr(torch, settings.dtype))


def _line(row: dict[str, Any], settings: BenchmarkHostsSettings) -> dict[str, str]:
    line = {
        "host": row["host"],
        "block": row["block"] or "-",
        "parameters (M)": f"{row['parameters'] / 1e6:.2f}",
        "GMACs": f"{row['multiply_adds'] / 1e9:.2f}",
    }
    for what in settings.passes:
        line[f"{what} ms an image"] = f"{row['ms_per_image'][what]:.2f}"
        line[f"{what} x base"] = spread(row["ratio"][what])
        line[f"{what} MB"] = f"{row['mb'][what]:.0f}"
    return line
