"""Reading, encoding and finishing of successive slides, at once.

A thread reads (it opens slides, finds tissue, lays grids and decodes patches, some batches ahead, also of the next
slide), this thread encodes, and a third one finishes: heads, heatmaps, pages.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

from .read_ahead import ReadAhead
from .stage_runner import Batch, SlideRunner

__all__ = ["run_pipeline"]

#: Batches that are decoded and wait for the encoder.
_AHEAD = 4


def run_pipeline(runners: Sequence[SlideRunner]) -> None:
    """Work through slides; one that fails does not stop the others.

    Args:
        runners: in their order; those that other processes work on come last.

    Raises:
        OSError: nothing more can be written.
    """
    ending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as finisher, ReadAhead(_read(runners), waiting=_AHEAD) as items:
        for runner, group in groupby(items, key=lambda item: item[0]):
            runner.encode(batch for _, batch in group if batch is not None)
            ending.append(finisher.submit(runner.finish))
            while ending and ending[0].done():
                ending.popleft().result()
        for future in ending:
            future.result()


def _read(runners: Sequence[SlideRunner]) -> Iterator[tuple[SlideRunner, Batch | None]]:
    """Every slide with `None`, and then with each of its batches of patches."""
    busy = []
    for runner in runners:
        if runner.acquire(wait=False):
            yield runner, None
            yield from ((runner, batch) for batch in runner.read())
        else:
            busy.append(runner)
    for runner in busy:
        if not runner.acquire(wait=False):
            sys.stderr.write(f"{runner.task.id}: waiting for another process that works on it\n")
            runner.acquire(wait=True)
        yield runner, None
        yield from ((runner, batch) for batch in runner.read())
