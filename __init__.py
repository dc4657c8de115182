"""Regard: attention that you can swap, correct and look at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .vision import create_model as create_model

__all__ = ["__version__", "create_model"]
__version__ = "0.1.0"

# In a checkout this folder holds datasets/, and a Python started here would take it for the library of that name.
_checkout = Path(__file__).resolve().parent
if (_checkout / "pyproject.toml").is_file():
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _checkout]


def __getattr__(name: str) -> Any:
    if name == "create_model":
        from .vision import create_model

        return create_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
