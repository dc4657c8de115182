"""The report of `regard slide`: a table of the slides that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["write_report"]


def write_report(
    out: Path,
    *,
    title: str = "Slides",
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write OUT/report.html from OUT/slides/*.json; thumbnails, heatmaps and pages are linked, not held.

    Args:
        out: the folder of results.
        title: headline.
        settings: name -> value.
        versions: name -> version.
        notes: what must be read first, such as that a model is a demonstration and no diagnosis.
    """
    raise NotImplementedError
