"""`regard benchmark heads --chunk`: one training step of a head on bags that do not fit, in chunks.

A step is a forward pass with the loss and AEM, its gradient and AdamW. Memory is the most that the process ever held,
the bag included: on a CPU its resident set since it began, so that each head wants a command of its own for an exact
figure; on CUDA the allocator's peak.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from ...heads import AEM, build_head
from ..settings import BenchmarkHeadsSettings

__all__ = ["large_bag_lines", "measure_large_bags"]

#: Instances that are drawn at once.
_BLOCK = 50_000


def measure_large_bags(settings: BenchmarkHeadsSettings) -> list[dict[str, Any]]:
    """A row for every head and number of instances.

    Raises:
        ValueError: there is no such head, or it does not support chunks.
    """
    heads = {
        name: build_head(name, settings.features, 2, chunk=settings.chunk).to(settings.device)
        for name in settings.heads
    }
    rows = []
    for count in settings.instances:
        bag = torch.empty(count, settings.features, dtype=getattr(torch, settings.dtype), device=settings.device)
        generator = torch.Generator(settings.device).manual_seed(0)
        for part in bag.split(_BLOCK):
            part.copy_(torch.randn(part.shape, generator=generator, device=settings.device))
        label = torch.tensor(1, device=settings.device)
        for name, head in heads.items():
            sys.stderr.write(f"{name}: {count} instances\n")
            optimizer = torch.optim.AdamW(head.parameters())
            begin = time.perf_counter()
            output = head.train()(bag, labels=label)
            loss = output.loss(label)
            if output.attention is not None:
                loss = loss + AEM()(output)
            loss.backward()
            optimizer.step()
            gigabytes = _peak_bytes(settings.device) / 1e9
            rows.append({"head": name, "instances": count, "s": time.perf_counter() - begin, "gb": gigabytes})
    return rows


def large_bag_lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The lines of the table, by heading."""
    return [
        {
            "head": row["head"],
            "instances": str(row["instances"]),
            "s a step": f"{row['s']:.1f}",
            "GB at most": f"{row['gb']:.2f}",
        }
        for row in rows
    ]


def _peak_bytes(device: str) -> int:
    """Most bytes that were held; waits for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
