"""The figures of a benchmark as a table, JSON and Markdown."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ...whole_files import write_atomically
from ..settings.benchmark import ReportSettings

__all__ = ["report", "torch_threads"]

#: Headings of columns of text, which are left-aligned.
_TEXT = {
    *("host", "block", "map", "pass", "model", "intervention"),
    *("head", "slide", "what", "restorer", "image", "overlap"),
}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use a number of CPU threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(
    settings: ReportSettings, rows: Sequence[dict[str, Any]], lines: Sequence[dict[str, str]], conditions: str
) -> None:
    """Print the table, and write the files that the settings name.

    Args:
        settings: of the benchmark.
        rows: the figures, in JSON's types.
        lines: lines of the table, by heading.
        conditions: what was measured under, for the title.
    """
    title = f"{settings.threads} CPU thread(s), {conditions}"
    Console(width=None if sys.stdout.isatty() else 160).print(_table(lines, title))
    if settings.out:
        found = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        record = {"settings": dataclasses.asdict(settings), **found, "rows": rows}
        write_atomically(Path(settings.out), json.dumps(record, indent=1) + "\n")
    if settings.markdown:
        write_atomically(Path(settings.markdown), _markdown(lines, title))


def _table(lines: Sequence[dict[str, str]], title: str) -> Table:
    table = Table(title=title)
    for heading in lines[0]:
        table.add_column(heading, justify="left" if heading in _TEXT else "right")
    for line in lines:
        table.add_row(*line.values())
    return table


def _markdown(lines: Sequence[dict[str, str]], title: str) -> str:
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join([f"{title}:", "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
