"""Regard: attention that you can swap, correct and look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .vision import create_model as create_model

__all__ = ["__version__", "create_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "create_model":
        from .vision import create_model

        return create_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
