"""Costs of a pass over a batch: time compared with others, peak memory, multiply-adds.

Time is taken in turns: every repeat times all contestants one after the other, so that whatever else the machine
does meets all of them; a ratio is formed within a repeat. Memory is what a pass holds at its peak beyond weights
and input, the output included: on CUDA from the allocator's own peak, on a CPU from PyTorch's allocator events in
time order, which is exact but for the scratch memory of the convolution and matrix libraries. Multiply-adds are
those of matrix products, convolutions and fused attention, from the shapes that really went into them: what a
block pads or masks counts, and element-wise work (norms, activations, softmax, recurrences) does not.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_flop_count

__all__ = ["Pass", "interleaved", "make_pass", "multiply_adds", "peak_bytes", "quartiles", "spread"]

#: A pass over a batch that can be repeated.
Pass = Callable[[], Any]


def make_pass(module: nn.Module, x: Tensor, what: str) -> Pass:
    """Inference (`"forward"`), or forward and backward (`"training"`), to `x` too if that requires a gradient."""
    if what == "forward":
        module.eval()

        def forward() -> Tensor:
            with torch.no_grad():
                return module(x)

        return forward
    module.train()
    with torch.no_grad():
        towards = torch.ones_like(module(x))

    def training() -> None:
        module(x).backward(towards)
        module.zero_grad(set_to_none=True)
        x.grad = None

    return training


def interleaved(passes: dict[str, Pass], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of a pass, in every repeat of every contestant.

    A turn is one pass untimed, since the contestant before has filled the caches, and then as many as take some
    20 ms. Who begins changes from repeat to repeat.
    """
    counts = {who: max(1, int(0.02 / max(_seconds(once, 1, device), 1e-6))) for who, once in passes.items()}
    seconds: dict[str, list[float]] = {who: [] for who in passes}
    order = list(passes)
    for _ in range(repeats):
        for who in order:
            seconds[who].append(_seconds(passes[who], counts[who], device))
        order = order[1:] + order[:1]
    return seconds


def quartiles(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Lower quartile, median and upper quartile of the ratio within a repeat.

    Example:
        >>> quartiles([2.0, 4.0, 6.0], [1.0, 1.0, 1.0])
        [3.0, 4.0, 5.0]
    """
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3


def spread(found: Sequence[float]) -> str:
    """What `quartiles` found, as a table shows it."""
    low, median, high = found
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def peak_bytes(once: Pass, device: str) -> int:
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


def multiply_adds(module: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one inference with `x`, on the path of that input; FLOPs are twice that.

    Example:
        >>> multiply_adds(nn.Linear(8, 4), torch.rand(3, 8))
        96
    """
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_BESIDE) as counter:
        module(x)
    return counter.get_total_flops() // 2


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _added_product(_: Sequence[int], left: Sequence[int], right: Sequence[int], *__: Any, **___: Any) -> int:
    return bmm_flop(left, right)


#: Operations of ours that PyTorch's counter has no formula for, and counts as nothing.
_BESIDE = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_fused_attention_overrideable: _attention,
    torch.ops.aten.baddbmm_: _added_product,
}


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
