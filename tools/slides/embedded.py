"""The bundled slides, and the note on the models made for demonstration."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["DEMONSTRATION", "embedded_slides"]

#: Shown wherever the embedded encoder or head is used.
DEMONSTRATION = (
    "A demonstration, not a diagnosis: the embedded encoder and head were trained on slides rendered from a few "
    "real stain textures, and know nothing of disease."
)


def embedded_slides() -> list[Path]:
    """Files of the bundled slides: a real one, and a rendered one."""
    folder = Path(str(files("regard.datasets.slides") / "embedded"))
    return sorted(path for path in folder.iterdir() if path.suffix in (".svs", ".tif", ".tiff"))
