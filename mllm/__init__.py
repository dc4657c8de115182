"""Large vision-language models: the wrapper, interventions on attention, benchmarks.

Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activity import Activity as Activity
    from .answer import Answer as Answer
    from .interventions import INTERVENTIONS as INTERVENTIONS
    from .interventions import describe as describe
    from .interventions import intervention_class as intervention_class
    from .interventions import parse_intervention as parse_intervention
    from .interventions import parse_interventions as parse_interventions
    from .interventions.pai import PAI as PAI
    from .interventions.var import VAR as VAR
    from .interventions.vhr import VHR as VHR
    from .lvlm import LVLM as LVLM
    from .session import Session as Session
    from .session import intervene as intervene
    from .sinks import SINKS as SINKS
    from .sinks import discover_sinks as discover_sinks

# What users may touch -> its file.
_FILES = {
    "INTERVENTIONS": "interventions",
    "LVLM": "lvlm",
    "PAI": "interventions.pai",
    "SINKS": "sinks",
    "VAR": "interventions.var",
    "VHR": "interventions.vhr",
    "Activity": "activity",
    "Answer": "answer",
    "Session": "session",
    "describe": "interventions",
    "discover_sinks": "sinks",
    "intervene": "session",
    "intervention_class": "interventions",
    "parse_intervention": "interventions",
    "parse_interventions": "interventions",
}

__all__ = [
    "INTERVENTIONS",
    "LVLM",
    "PAI",
    "SINKS",
    "VAR",
    "VHR",
    "Activity",
    "Answer",
    "Session",
    "describe",
    "discover_sinks",
    "intervene",
    "intervention_class",
    "parse_intervention",
    "parse_interventions",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
