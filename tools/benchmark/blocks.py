"""`regard benchmark blocks`: time and peak memory of attention blocks, plain formulations and softmax attention.

Ratios are taken side by side; see `regard.tools.benchmark.profiler`.
"""

from __future__ import annotations

import inspect
import statistics
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...vision.attention import build_attention
from ...vision.attention.hat import WindowAttention
from ...vision.attention.plain import PLAIN
from ...vision.attention.plain.hat import PlainWindowAttention
from ...vision.attention.plain.van import PlainVanBlock
from ...vision.attention.plain.vig import recurrence
from ...vision.attention.vig import gated_linear_attention
from ...vision.backbones.van import Block
from ..run.devices import choose_device
from ..settings import BenchmarkBlocksSettings
from .profiler import interleaved, make_pass, multiply_adds, peak_bytes, quartiles, spread
from .report import report, torch_threads

__all__ = ["run"]


def run(settings: BenchmarkBlocksSettings) -> int:
    """Measure, print and write; the exit code is 0.

    Args:
        settings: see `BenchmarkBlocksSettings`.

    Raises:
        ValueError: an unknown block, option or device.
    """
    choose_device(settings.device)
    with torch_threads(settings.threads):
        rows = [
            _measure(name, side, layout, what, settings)
            for name in settings.blocks
            for side in settings.sides
            for layout in settings.layouts
            for what in settings.passes
        ]
    conditions = f"{settings.device}, {settings.dtype}, batch {settings.batch}, dim {settings.dim}"
    report(settings, rows, [_line(row, settings) for row in rows], conditions)
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


def _measure(name: str, side: int, layout: str, what: str, settings: BenchmarkBlocksSettings) -> dict[str, Any]:
    """One row: milliseconds and megabytes of each contestant, ratios to ours, and what was skipped."""
    sys.stderr.write(f"{name} {side}x{side} {layout} {what}\n")
    torch.manual_seed(0)
    planes = torch.randn(settings.batch, settings.dim, side, side)
    planes = planes.to(settings.device, getattr(torch, settings.dtype))
    grid = planes.permute(0, 2, 3, 1)
    ours, plain = _contestants(name, settings)
    inputs = {"ours": (ours, grid.contiguous() if layout == "nhwc" else grid)}
    row: dict[str, Any] = {"block": name, "side": side, "layout": layout, "pass": what, "left_out": {}}
    reason = _too_large(side, settings)
    if "plain" not in settings.baselines:
        row["left_out"]["plain"] = "not requested"
    elif isinstance(plain, str):
        row["left_out"]["plain"] = plain
    elif reason and name == "softmax":
        row["left_out"]["plain"] = reason
    else:
        inputs["plain"] = (plain, planes)
    if "softmax" not in settings.baselines:
        row["left_out"]["softmax"] = "not requested"
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


def _contestants(name: str, settings: BenchmarkBlocksSettings) -> tuple[nn.Module, nn.Module | str]:
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


def _too_large(side: int, settings: BenchmarkBlocksSettings) -> str:
    """Why softmax attention is skipped, or nothing."""
    heads = max(1, settings.dim // 32)
    itemsize = getattr(torch, settings.dtype).itemsize
    gb = settings.batch * heads * side**4 * itemsize / 1e9
    return f"{gb:.1f} GB of weights" if gb > settings.memory_limit_gb else ""


def _line(row: dict[str, Any], settings: BenchmarkBlocksSettings) -> dict[str, str]:
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
    for who in settings.baselines:
        reason = row["left_out"].get(who, "")
        line[f"{who} ms"] = f"{ms[who]:.2f}" if who in ms else reason
        line[f"times faster than {who}"] = spread(row["times_faster"][who]) if who in ms else ""
        line[f"share of {who}'s MB"] = f"{mb['ours'] / mb[who]:.2f}" if mb.get(who) else ""
    return line
