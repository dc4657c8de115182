"""Patch encoders by name: networks of pathology, any model of timm, or your own.

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import build_encoder as build_encoder
    from .encoder import PatchEncoder as PatchEncoder
    from .encoder import encoder_fingerprint as encoder_fingerprint
    from .table import ENCODERS as ENCODERS
    from .table import EncoderRow as EncoderRow

# What users may touch -> its file.
_FILES = {
    "ENCODERS": "table",
    "EncoderRow": "table",
    "PatchEncoder": "encoder",
    "build_encoder": "build",
    "encoder_fingerprint": "encoder",
}

__all__ = ["ENCODERS", "EncoderRow", "PatchEncoder", "build_encoder", "encoder_fingerprint"]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
