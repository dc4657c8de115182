"""The report of `regard slide`: a table of the slides that opens from disk.

Images are separate files, loaded when they come into view, so the page of a thousand slides has about a megabyte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...whole_files import write_atomically
from .page import build_page
from .result import read_results

__all__ = ["write_report"]


def write_report(
    out: Path,
    *,
    title: str = "Slides",
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write OUT/report.html from OUT/slides/*.json; images and pages are linked, not held.

    Of a result's files the table shows `preview`, or else `thumbnail` or `heatmap_absolute`; behind a row lie
    `heatmap_absolute`, `heatmap_percentile`, `top` and `tissue_image`; `page` is where its name leads; all are
    linked.

    Args:
        out: the folder of results.
        title: headline.
        settings: name -> value.
        versions: name -> version.
        notes: shown first, such as that a model is a demonstration, not a diagnosis.

    Example:
        >>> from .result import SlideResult, write_result
        >>> path = write_result(Path("run"), SlideResult(id="a", path="a.svs", status="empty"))
        >>> write_report(Path("run"), notes=["A demonstration, not a diagnosis."]).name
        'report.html'
    """
    results = read_results(out)
    labelled = [one for one in results if one.label is not None and one.truth is not None]
    data = {
        "title": title,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in (settings or {}).items()},
        "versions": dict(versions or {}),
        "notes": list(notes),
        "classes": _classes(results),
        "labelled": len(labelled),
        "correct": sum(one.label == one.truth for one in labelled),
        "slides": [dataclasses.asdict(one) for one in results],
    }
    write_atomically(out / "report.html", build_page("report", data))
    return out / "report.html"


def _classes(results: Sequence[Any]) -> list[str]:
    """All classes, the last of a run first: in pairs such as normal and tumour that is the one to look for."""
    names = dict.fromkeys(name for one in results for name in one.probabilities)
    return list(reversed(names))
