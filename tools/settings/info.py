"""Settings of `regard doctor` and `regard list`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .types import Checked

__all__ = ["DoctorSettings", "ListSettings"]


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(Checked):
    """Show versions, devices and optional packages, with the command that installs what is missing."""


@dataclass(frozen=True, kw_only=True)
class ListSettings(Checked):
    """List models, attention blocks, recipes, interventions, benchmarks, bag heads and patch encoders.

    Attributes:
        kind: what to list.
        json: print JSON.
    """

    kind: Literal["all", "models", "blocks", "recipes", "interventions", "benchmarks", "heads", "encoders"] = "all"
    json: bool = False
