"""Heads: pooling and multiple-instance heads, one a file, and the table of their names.

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aem import AEM as AEM
    from .checkpoints import load_head as load_head
    from .contract import BagOutput as BagOutput
    from .table import HEADS as HEADS
    from .table import build_head as build_head
    from .table import head_class as head_class
    from .trained_head import TrainedHead as TrainedHead
    from .trained_head import load_trained_head as load_trained_head
    from .trained_head import save_trained_head as save_trained_head

# What users may touch -> its file.
_FILES = {
    "AEM": "aem",
    "HEADS": "table",
    "BagOutput": "contract",
    "TrainedHead": "trained_head",
    "build_head": "table",
    "head_class": "table",
    "load_head": "checkpoints",
    "load_trained_head": "trained_head",
    "save_trained_head": "trained_head",
}

__all__ = [
    "AEM",
    "HEADS",
    "BagOutput",
    "TrainedHead",
    "build_head",
    "head_class",
    "load_head",
    "load_trained_head",
    "save_trained_head",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
