"""The summary of a run on slides: summary.json, summary.csv, the report, and a table in the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...whole_files import write_atomically
from ..settings import SlideSettings
from .cohort_plan import SlideTask
from .embedded import DEMONSTRATION
from .result import SlideResult, read_results
from .slide_report import write_report

__all__ = ["finish", "is_well"]


def is_well(result: SlideResult) -> bool:
    """Whether a slide was read completely, and all requested stages are done."""
    return result.status == "done" and not result.damaged


def finish(
    settings: SlideSettings, out: Path, tasks: Sequence[SlideTask], *, seconds: float, embedded: bool
) -> list[SlideResult]:
    """Write the summary of all slides in the folder, and print that of this run's.

    Args:
        settings: of the run.
        out: the folder of results.
        tasks: the slides of this run.
        seconds: it took.
        embedded: whether the embedded encoder or head was used.

    Returns:
        The results of this run's slides.
    """
    everything = read_results(out)
    names = {task.id for task in tasks}
    results = [result for result in everything if result.id in names]
    counts = Counter(result.status for result in everything)
    summary = {
        "note": DEMONSTRATION if embedded else "",
        "counts": dict(sorted(counts.items())),
        "seconds": round(seconds, 1),
        "slides": [asdict(result) for result in everything],
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=1))
    write_atomically(out / "summary.csv", _table(everything))
    versions = json.loads((out / "run.json").read_text(encoding="utf-8"))["versions"]
    write_report(out, settings=asdict(settings), versions=versions, notes=[DEMONSTRATION] if embedded else [])
    _print(results, out, embedded)
    return results


def _table(results: Sequence[SlideResult]) -> str:
    classes = list(dict.fromkeys(name for result in results for name in result.probabilities))
    columns = [
        "slide",
        "status",
        "label",
        *(f"prob_{name}" for name in classes),
        *(f"spread_{name}" for name in classes),
    ]
    columns += ["patches", "damaged", "tissue", "mpp", "width", "height", "reason", "warnings", "path"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for result in results:
        row = asdict(result) | {"slide": result.id, "warnings": "; ".join(result.warnings)}
        row |= {f"prob_{name}": f"{value:.6g}" for name, value in result.probabilities.items()}
        row |= {f"spread_{name}": f"{value:.6g}" for name, value in result.spread.items()}
        writer.writerow({name: row.get(name, "") for name in columns})
    return text.getvalue()


def _print(results: Sequence[SlideResult], out: Path, embedded: bool) -> None:
    table = Table("slide", "status", "prediction", "patches", "seconds", "reason")
    for result in results:
        spread = result.spread.get(result.label or "")
        sure = f" (spread {spread:.3f})" if spread else ""
        prediction = f"{result.label} {result.probabilities[result.label]:.3f}{sure}" if result.label else ""
        notes = "; ".join([result.reason, *result.warnings]).strip("; ")
        took = f"{sum(result.seconds[name] or 0 for name in result.seconds):.1f}"
        table.add_row(escape(result.id), result.status, escape(prediction), f"{result.patches:,}", took, escape(notes))
    console = Console()
    console.print(table)
    if embedded:
        console.print(DEMONSTRATION, soft_wrap=True)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
