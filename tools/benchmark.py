"""`regard benchmark`: time and peak memory of attention blocks, as ratios taken side by side.

Every repeat times our block, its plain formulation and softmax attention one after the other, so that
whatever else the machine does meets all three; a ratio is the median over repeats of the ratio within a
repeat, and its spread is the quartiles. Memory is what a pass holds at its peak beyond weights and input, the
output included: on CUDA from the allocator's own peak, on a CPU from PyTorch's allocator events in time order,
which is exact but for the scratch memory of the convolution and matrix libraries.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..vision.attention import build_attention
from ..vision.attention.plain import PLAIN
from ..vision.attention.plain.van import PlainVanBlock
from ..vision.backbones.van import Block
from .settings import BenchmarkSettings

__all__ = ["run"]

#: A pass over a batch that can be repeated.
Pass = Callable[[], Any]


def run(settings: BenchmarkSettings) -> int:
    """Measure, print the table; exit code 0.

    Raises:
        ValueError: an unknown block, device or a setting out of range.
    """
    if min([settings.dim, settings.batch, settings.repeats, settings.threads, *settings.sides]) < 1:
        raise ValueError("sides, dim, batch, repeats and threads must be at least 1")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {settings.device!r} but torch finds no CUDA device; use cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        rows = []
        for name in settings.blocks:
            for side in settings.sides:
                for layout in settings.layouts:
                    for what in settings.passes:
                        sys.stderr.write(f"{name} {side}x{side} {layout} {what}\n")
                        rows.append(_measure(name, side, layout, what, settings))
    finally:
        torch.set_num_threads(threads)
    Console(width=None if sys.stdout.isatty() else 160).print(_table(rows, settings))
    if settings.out:
        found = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        record = {"settings": dataclasses.asdict(settings), **found, "rows": rows}
        Path(settings.out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


class _PlanesInside(nn.Module):
    """A module of NCHW maps behind the channels-last contract."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _measure(name: str, side: int, layout: str, what: str, settings: BenchmarkSettings) -> dict[str, Any]:
    """One row: milliseconds and megabytes of each contestant, ratios to ours, and what was left out."""
    torch.manual_seed(0)
    planes = torch.randn(settings.batch, settings.dim, side, side)
    planes = planes.to(settings.device, getattr(torch, settings.dtype))
    grid = planes.permute(0, 2, 3, 1)
    ours, plain = _contestants(name, settings)
    inputs = {"ours": (ours, grid.contiguous() if layout == "nhwc" else grid)}
    row: dict[str, Any] = {"block": name, "side": side, "layout": layout, "pass": what, "left_out": {}}
    reason = _too_large(side, settings)
    if plain is None:
        row["left_out"]["plain"] = "no plain formulation"
    elif reason and name == "softmax":
        row["left_out"]["plain"] = reason
    else:
        inputs["plain"] = (plain, planes)
    if reason:
        row["left_out"]["softmax"] = reason
    elif name != "softmax":
        softmax = build_attention("softmax", settings.dim).to(planes)
        inputs["softmax"] = (softmax, grid.contiguous())
    passes = {who: _pass(module, x, what) for who, (module, x) in inputs.items()}
    row["mb"] = {who: _peak_bytes(once, settings.device) / 1e6 for who, once in passes.items()}
    seconds = _interleaved(passes, settings)
    row["ms"] = {who: 1e3 * statistics.median(taken) for who, taken in seconds.items()}
    row["times_faster"] = {}
    for who in set(seconds) - {"ours"}:
        ratios = [theirs / mine for theirs, mine in zip(seconds[who], seconds["ours"], strict=True)]
        row["times_faster"][who] = (
            statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        )
    return row


def _contestants(name: str, settings: BenchmarkSettings) -> tuple[nn.Module, nn.Module | None]:
    """Our block and its plain formulation with the same weights."""
    like = {"device": settings.device, "dtype": getattr(torch, settings.dtype)}
    if name == "van_block":
        block, plain_block = Block(settings.dim, mlp_ratio=8), PlainVanBlock(settings.dim, mlp_ratio=8)
        plain_block.load_state_dict(block.state_dict())
        return _PlanesInside(block).to(**like), plain_block.to(**like)
    ours = build_attention(name, settings.dim)
    if name not in PLAIN:
        return ours.to(**like), None
    module, _, attribute = PLAIN[name].partition(":")
    plain_class = getattr(import_module(f"..vision.attention.plain.{module}", __package__), attribute)
    heads = {"num_heads": ours.num_heads} if hasattr(ours, "num_heads") else {}
    plain = plain_class(settings.dim, **heads)
    plain.load_state_dict(ours.state_dict())
    return ours.to(**like), plain.to(**like)


def _too_large(side: int, settings: BenchmarkSettings) -> str:
    """Why softmax attention is left out, or nothing."""
    heads = max(1, settings.dim // 32)
    itemsize = getattr(torch, settings.dtype).itemsize
    gb = settings.batch * heads * side**4 * itemsize / 1e9
    return f"{gb:.1f} GB of weights" if gb > settings.memory_limit_gb else ""


def _pass(module: nn.Module, x: Tensor, what: str) -> Pass:
    if what == "forward":
        module.eval()

        def forward() -> Tensor:
            with torch.no_grad():
                return module(x)

        return forward
    module.train()
    x = x.detach().requires_grad_()
    towards = torch.ones_like(x)

    def training() -> None:
        module(x).backward(towards)
        module.zero_grad(set_to_none=True)
        x.grad = None

    return training


def _interleaved(passes: dict[str, Pass], settings: BenchmarkSettings) -> dict[str, list[float]]:
    """Seconds of a pass, in every repeat of every contestant.

    A turn is one pass untimed, since the contestant before has filled the caches, and then as many as take some
    20 ms. Who begins changes from repeat to repeat.
    """
    counts = {who: max(1, int(0.02 / max(_seconds(once, 1, settings.device), 1e-6))) for who, once in passes.items()}
    seconds: dict[str, list[float]] = {who: [] for who in passes}
    order = list(passes)
    for _ in range(settings.repeats):
        for who in order:
            seconds[who].append(_seconds(passes[who], counts[who], settings.device))
        order = order[1:] + order[:1]
    return seconds


def _seconds(once: Pass, count: int, device: str) -> float:
    """Mean of `count` passes, after one that warms up."""
    once()
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        once()
    _wait(device)
    return (time.perf_counter() - start) / count


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _peak_bytes(once: Pass, device: str) -> int:
    """Most bytes that a pass holds at any moment, beyond what was there before."""
    once()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        once()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own talk
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        once()
    results = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _table(rows: Sequence[dict[str, Any]], settings: BenchmarkSettings) -> Table:
    title = f"{settings.device}, {settings.dtype}, {settings.threads} thread(s), batch {settings.batch}"
    table = Table("block", "map", "pass", title=f"{title}, dim {settings.dim}")
    for heading in (
        "ms",
        "plain ms",
        "times faster",
        "MB",
        "plain MB",
        "share",
        "softmax ms",
        "times faster",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        ms, mb = row["ms"], row["mb"]
        table.add_row(
            row["block"],
            f"{row['side']}x{row['side']} {row['layout']}",
            row["pass"],
            f"{ms['ours']:.2f}",
            _number(ms, "plain") or row["left_out"].get("plain", ""),
            _ratio(row, "plain"),
            f"{mb['ours']:.1f}",
            _number(mb, "plain"),
            f"{mb['ours'] / mb['plain']:.2f}" if mb.get("plain") else "",
            _number(ms, "softmax") or row["left_out"].get("softmax", ""),
            _ratio(row, "softmax"),
        )
    return table


def _number(figures: dict[str, float], who: str) -> str:
    return f"{figures[who]:.2f}" if who in figures else ""


def _ratio(row: dict[str, Any], who: str) -> str:
    if who not in row["times_faster"]:
        return ""
    low, median, high = row["times_faster"][who]
    return f"{median:.2f} ({low:.2f}-{high:.2f})"
