"""Settings of `regard convert`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .types import Checked

__all__ = ["ConvertSettings"]


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(Checked):
    """Convert a file of the authors' weights to a folder that timm loads.

    Attributes:
        source: path or URL of the file.
        model: one of our models (`regard list --kind models`); by default identified from the file.
        out: folder to make; by default named after the model.
        sha256: expected SHA-256 of the file.
        trust: read a file that holds more than tensors, in a sandbox that runs nothing of it.
        options: keyword arguments of the model, such as '{img_size: 384}'.
    """

    source: str = field(metadata={"positional": True})
    model: str | None = None
    out: str | None = None
    sha256: str | None = None
    trust: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def check_together(self) -> None:
        """A source without a scheme is a file."""
        if not re.match(r"[a-z]+://", self.source) and not Path(self.source).is_file():
            raise ValueError(f"there is no file of weights {self.source}; give its path or its URL")
