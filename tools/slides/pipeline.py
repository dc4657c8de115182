"""Many slides on their way at once: read ahead, encode, finish.

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
from .stage_runner import Batch, SlideWork

__all__ = ["work_on"]

#: Batches that are decoded and wait for the encoder.
_AHEAD = 4


def work_on(works: Sequence[SlideWork]) -> None:
    """Work through slides; one that fails does not stop the others.

    Args:
        works: in their order; those that other processes are at come last.

    Raises:
        OSError: nothing more can be written.
    """
    ending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as finisher, ReadAhead(_read(works), waiting=_AHEAD) as items:
        for work, group in groupby(items, key=lambda item: item[0]):
            work.encode(batch for _, batch in group if batch is not None)
            ending.append(finisher.submit(work.finish))
            while ending and ending[0].done():
                ending.popleft().result()
        for future in ending:
            future.result()


def _read(works: Sequence[SlideWork]) -> Iterator[tuple[SlideWork, Batch | None]]:
    """Every slide with `None`, and then with each of its batches of patches."""
    busy = []
    for work in works:
        if work.take(wait=False):
            yield work, None
            yield from ((work, batch) for batch in work.read())
        else:
            busy.append(work)
    for work in busy:
        if not work.take(wait=False):
            sys.stderr.write(f"{work.task.id}: another process is at it; waiting\n")
            work.take(wait=True)
        yield work, None
        yield from ((work, batch) for batch in work.read())
