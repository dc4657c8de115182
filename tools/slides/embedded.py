"""The slides that come along."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["embedded_slides"]


def embedded_slides() -> list[Path]:
    """Their files: a real one, and one that was rendered."""
    folder = Path(str(files("regard.datasets.slides") / "embedded"))
    return sorted(path for path in folder.iterdir() if path.suffix in (".svs", ".tif", ".tiff"))
