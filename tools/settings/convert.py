"""Settings of `regard convert`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

__all__ = ["ConvertSettings"]


@dataclass(frozen=True)
class ConvertSettings:
    """Turn a file of the authors' weights into a folder that timm loads.

    Attributes:
        source: the file, its path or its URL.
        model: one of our models (regard list --kind models); null finds it by the names and shapes in the file.
        out: folder to make; null is a folder named after the model, here.
        sha256: what the file must have, to be sure that it is the one you mean.
        trust: read a file that holds more than tensors, in a sandbox that runs nothing of it.
        options: the model's own keyword arguments, e.g. img_size or in_chans.
    """

    source: str  # the one setting that needs no flag
    _: KW_ONLY
    model: str | None = None
    out: str | None = None
    sha256: str | None = None
    trust: bool = False
    options: dict[str, Any] = field(default_factory=dict)
