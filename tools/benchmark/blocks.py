"""`regard benchmark`: time and peak memory of attention blocks alone, and of whole models with them.

Figures are ratios taken side by side; see `regard.tools.benchmark.profiler` for how. A block alone is measured here,
beside its plain formulation and softmax attention; models are measured in `regard.tools.benchmark.hosts`, fixes of
vision-language models in `regard.tools.benchmark.lvlm`, multiple-instance heads in `regard.tools.benchmark.heads`,
in `regard.tools.benchmark.large_bags` on bags that do not fit, readers of slides in `regard.tools.benchmark.slides`,
and networks that restore images in `regard.tools.benchmark.restorers`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ...vision.attention import build_attention
from ...vision.attention.hat import WindowAttention
from ...vision.attention.plain import PLAIN
from ...vision.attention.plain.hat import PlainWindowAttention
from ...vision.attention.plain.van import PlainVanBlock
from ...vision.attention.plain.vig import recurrence
from ...vision.attention.vig import gated_linear_attention
from ...vision.backbones.van import Block
from ..settings import BenchmarkSettings
from . import heads as benchmark_heads
from . import hosts as benchmark_hosts
from . import large_bags as benchmark_large_bags
from . import lvlm as benchmark_lvlms
from . import restorers as benchmark_restorers
from .profiler import interleaved, make_pass, multiply_adds, peak_bytes, quartiles, spread

__all__ = ["run"]

#: Headings of columns of words.
_WORDS = ("host", "block", "map", "pass", "model", "method", "head", "slide", "what", "restorer", "image", "overlap")

#: What is measured where no block is named.
BLOCKS = ["van", "van_block", "ela"]


def run(settings: BenchmarkSettings) -> int:
    """Measure, print the table; exit code 0.

    Raises:
        ValueError: an unknown block, host or device, or a setting out of range.
    """
    numbers = [
        settings.dim,
        settings.batch,
        settings.repeats,
        settings.threads,
        settings.image_size,
        settings.new_tokens,
        settings.features,
        *settings.sides,
        *settings.instances,
    ]
    if min(numbers) < 1:
        raise ValueError(
            "sides, dim, batch, repeats, threads, image_size, new_tokens, instances, features must be at least 1"
        )
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {settings.device!r} but torch finds no CUDA device; use cpu")
    if settings.base and not settings.hosts:
        raise ValueError(f"base is {settings.base!r} but there are no hosts to compare with it; name some in hosts")
    blocks = settings.blocks or ([] if settings.hosts else BLOCKS)
    known = {
        "blocks": (settings.options, blocks),
        "hosts": (settings.host_options, [*settings.hosts, settings.base or ""]),
    }
    for where, (options, names) in known.items():
        for name in options:
            if name not in names:
                raise ValueError(f"there are options for {name!r}, which is not measured; name it in {where}")
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        if settings.lvlms:
            rows = benchmark_lvlms.measure(settings)
            lines = benchmark_lvlms.lines(rows)
        elif settings.slides:
            from . import slides as benchmark_slides  # with the libraries of the extra wsi

            rows = benchmark_slides.measure(settings)
            lines = benchmark_slides.lines(rows)
        elif settings.restorers:
            rows = benchmark_restorers.measure(settings)
            lines = benchmark_restorers.lines(rows)
        elif settings.heads and settings.chunk:
            rows = benchmark_large_bags.measure(settings)
            lines = benchmark_large_bags.lines(rows)
        elif settings.heads:
            rows = benchmark_heads.measure(settings)
            lines = benchmark_heads.lines(rows)
        elif settings.hosts:
            rows = benchmark_hosts.measure(blocks, settings)
            lines = benchmark_hosts.lines(rows, settings)
        else:
            rows = _measure(blocks, settings)
            lines = [_line(row, settings) for row in rows]
    finally:
        torch.set_num_threads(threads)
    size = f"{settings.image_size} px" if settings.hosts else f"dim {settings.dim}"
    size = f"{settings.new_tokens} new tokens" if settings.lvlms else size
    size = f"{settings.features} features" if settings.heads else size
    size = "images" if settings.restorers else size
    batch = 1 if settings.heads or settings.restorers else settings.batch
    title = f"{settings.device}, {settings.dtype}, {settings.threads} thread(s), batch {batch}, {size}"
    title = f"cpu, {settings.threads} thread(s) of the network" if settings.slides else title
    Console(width=None if sys.stdout.isatty() else 160).print(_table(lines, title))
    if settings.out:
        found = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        record = {"settings": dataclasses.asdict(settings), **found, "rows": rows}
        Path(settings.out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if settings.markdown:
        Path(settings.markdown).write_text(_markdown(lines, title), encoding="utf-8")
    return 0


class _PlanesInside(nn.Module):
    """A module of NCHW maps behind the channels-last contract."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Shifted(nn.Module):
    """Window attention of HAT with its windows shifted."""

    def __init__(self, inner: nn.Module, shift: int) -> None:
        super().__init__()
        self.inner, self.shift = inner, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, shift=self.shift)


class _Memory(nn.Module):
    """ViG's memory without the layers around it, as in its published networks: 64 channels a head, 32 for queries.

    `read` takes queries, keys, values and the decays of both ways.
    """

    def __init__(self, read: Callable[..., Tensor]) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1, 2).unflatten(-1, (-1, min(64, x.shape[-1]))).transpose(1, 2)  # batch heads tokens channels
        query, key = value.chunk(2, dim=-1)
        decay = F.logsigmoid(key) / 16
        return self.read(query, key, value, decay, decay).transpose(1, 2).reshape(x.shape)


class _NhwcInside(nn.Module):
    """A module of the channels-last contract behind NCHW maps."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _by_recurrence(query: Tensor, key: Tensor, value: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    back = recurrence(query.flip(2), key.flip(2), value.flip(2), backward.flip(2)).flip(2)
    return recurrence(query, key, value, forward) + back


def _measure(blocks: Sequence[str], settings: BenchmarkSettings) -> list[dict[str, Any]]:
    rows = []
    for name in blocks:
        for side in settings.sides:
            for layout in settings.layouts:
                for what in settings.passes:
                    sys.stderr.write(f"{name} {side}x{side} {layout} {what}\n")
                    rows.append(_measure_one(name, side, layout, what, settings))
    return rows


def _measure_one(name: str, side: int, layout: str, what: str, settings: BenchmarkSettings) -> dict[str, Any]:
    """One row: milliseconds and megabytes of each contestant, ratios to ours, and what was left out."""
    torch.manual_seed(0)
    planes = torch.randn(settings.batch, settings.dim, side, side)
    planes = planes.to(settings.device, getattr(torch, settings.dtype))
    grid = planes.permute(0, 2, 3, 1)
    ours, plain = _contestants(name, settings)
    inputs = {"ours": (ours, grid.contiguous() if layout == "nhwc" else grid)}
    row: dict[str, Any] = {"block": name, "side": side, "layout": layout, "pass": what, "left_out": {}}
    reason = _too_large(side, settings)
    if "plain" not in settings.beside:
        row["left_out"]["plain"] = "not asked for"
    elif isinstance(plain, str):
        row["left_out"]["plain"] = plain
    elif reason and name == "softmax":
        row["left_out"]["plain"] = reason
    else:
        inputs["plain"] = (plain, planes)
    if "softmax" not in settings.beside:
        row["left_out"]["softmax"] = "not asked for"
    elif reason:
        row["left_out"]["softmax"] = reason
    elif name != "softmax":
        softmax = build_attention("softmax", settings.dim).to(planes)
        inputs["softmax"] = (softmax, grid.contiguous())
    row["multiply_adds"] = {who: multiply_adds(module, x[:1]) for who, (module, x) in inputs.items()}
    if what == "training":
        inputs = {who: (module, x.detach().requires_grad_()) for who, (module, x) in inputs.items()}
    passes = {who: make_pass(module, x, what) for who, (module, x) in inputs.items()}
    row["mb"] = {who: peak_bytes(once, settings.device) / 1e6 for who, once in passes.items()}
    seconds = interleaved(passes, settings.repeats, settings.device)
    row["ms"] = {who: 1e3 * statistics.median(taken) for who, taken in seconds.items()}
    row["ns_per_token"] = {who: 1e6 * ms / (settings.batch * side**2) for who, ms in row["ms"].items()}
    rivals = set(seconds) - {"ours"}
    row["times_faster"] = {who: quartiles(seconds[who], seconds["ours"]) for who in rivals}
    return row


def _contestants(name: str, settings: BenchmarkSettings) -> tuple[nn.Module, nn.Module | str]:
    """Our block and its plain formulation with the same weights, or why there is none."""
    like = {"device": settings.device, "dtype": getattr(torch, settings.dtype)}
    options = settings.options.get(name, {})
    if name == "van_block":
        both = {"mlp_ratio": 8} | options
        block, plain_block = Block(settings.dim, **both), PlainVanBlock(settings.dim, **both)
        plain_block.load_state_dict(block.state_dict())
        return _PlanesInside(block).to(**like), plain_block.to(**like)
    if name == "vig_memory":
        return _Memory(gated_linear_attention), _NhwcInside(_Memory(_by_recurrence))
    if name == "hat_windows":
        both = {"num_heads": 6, "window_size": 16, "qkv_bias": True} | options
        shift = both.pop("shift", 0)
        windows, plain_windows = WindowAttention(settings.dim, **both), PlainWindowAttention(settings.dim, **both)
        plain_windows.load_state_dict(windows.state_dict())
        return _Shifted(windows, shift).to(**like), _Shifted(plain_windows, shift).to(**like)
    ours = build_attention(name, settings.dim, options)
    if name not in PLAIN:
        return ours.to(**like), "no plain formulation"
    module, _, attribute = PLAIN[name].partition(":")
    plain_class = getattr(import_module(f"...vision.attention.plain.{module}", __package__), attribute)
    heads = {"num_heads": ours.num_heads} if hasattr(ours, "num_heads") else {}
    without = [key for key in options if key not in inspect.signature(plain_class).parameters]
    if without:
        return ours.to(**like), f"no {', '.join(without)} in the plain formulation"
    plain = plain_class(settings.dim, **(heads | options))
    plain.load_state_dict(ours.state_dict())
    return ours.to(**like), plain.to(**like)


def _too_large(side: int, settings: BenchmarkSettings) -> str:
    """Why softmax attention is left out, or nothing."""
    heads = max(1, settings.dim // 32)
    itemsize = getattr(torch, settings.dtype).itemsize
    gb = settings.batch * heads * side**4 * itemsize / 1e9
    return f"{gb:.1f} GB of weights" if gb > settings.memory_limit_gb else ""


def _line(row: dict[str, Any], settings: BenchmarkSettings) -> dict[str, str]:
    """A line of the table, by heading."""
    ms, mb = row["ms"], row["mb"]
    line = {
        "block": row["block"],
        "map": f"{row['side']}x{row['side']} {row['layout']}",
        "pass": row["pass"],
        "ms": f"{ms['ours']:.2f}",
        "ns a token": f"{row['ns_per_token']['ours']:.0f}",
        "MB": f"{mb['ours']:.1f}",
    }
    for who in settings.beside:
        reason = row["left_out"].get(who, "")
        line[f"{who} ms"] = f"{ms[who]:.2f}" if who in ms else reason
        line[f"times faster than {who}"] = spread(row["times_faster"][who]) if who in ms else ""
        line[f"share of {who}'s MB"] = f"{mb['ours'] / mb[who]:.2f}" if mb.get(who) else ""
    return line


def _table(lines: Sequence[dict[str, str]], title: str) -> Table:
    table = Table(title=title)
    for heading in lines[0]:
        table.add_column(
            heading,
            justify="left" if heading in _WORDS else "right",
        )
    for line in lines:
        table.add_row(*line.values())
    return table


def _markdown(lines: Sequence[dict[str, str]], title: str) -> str:
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join([f"{title}:", "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
