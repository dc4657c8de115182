"""The bundled slides, and what a user must know about models that are for demonstration."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["DEMONSTRATION", "embedded_slides"]

#: Said wherever the embedded encoder or head takes part.
DEMONSTRATION = (
    "A demonstration and no diagnosis: the embedded encoder and head were trained on slides rendered from a few "
    "real stain textures, and know nothing of disease."
)


def embedded_slides() -> list[Path]:
    """Their files: a real one, and one that was rendered."""
    folder = Path(str(files("regard.datasets.slides") / "embedded"))
    return sorted(path for path in folder.iterdir() if path.suffix in (".svs", ".tif", ".tiff"))
