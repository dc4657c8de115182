"""Settings of `regard doctor` and `regard list`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DoctorSettings", "ListSettings"]


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Show versions, devices and optional parts, with the line that installs what is missing."""


@dataclass(frozen=True, kw_only=True)
class ListSettings:
    """Show models, attention blocks, recipes, methods against hallucination, benchmarks, bag heads and encoders.

    Attributes:
        kind: what to show.
        json: machine-readable output.
    """

    kind: Literal["all", "models", "blocks", "recipes", "methods", "benchmarks", "heads", "encoders"] = "all"
    json: bool = False
