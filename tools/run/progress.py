"""How far a job has come: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

__all__ = ["progress"]

_LINE_SECONDS = 30


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is called with how many more are done.

    Args:
        what: is counted, in words.
        total: how many there are.

    Example:
        >>> with progress("patches", 3) as step:
        ...     step(3)
    """
    if sys.stderr.isatty():
        with Progress(transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, last = 0, time.monotonic()

    def step(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last > _LINE_SECONDS:
            last = time.monotonic()
            sys.stderr.write(f"{what}: {done} of {total}\n")

    yield step
