"""Settings of `regard convert`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

__all__ = ["ConvertSettings"]


@dataclass(frozen=True)
class ConvertSettings:
    """Convert a file of the authors' weights into a folder that timm loads.

    Attributes:
        source: path or URL of the file.
        model: one of our models (regard list --kind models); null identifies it by the names and shapes in the file.
        out: folder to create; null is a folder named after the model, in the current one.
        sha256: expected SHA-256 of the file.
        trust: read a file that holds more than tensors, in a sandbox that runs nothing of it.
        options: keyword arguments of the model, e.g. img_size or in_chans.
    """

    source: str
    _: KW_ONLY
    model: str | None = None
    out: str | None = None
    sha256: str | None = None
    trust: bool = False
    options: dict[str, Any] = field(default_factory=dict)
