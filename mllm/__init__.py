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
    from .interventions.act import ACT as ACT
    from .interventions.agla import AGLA as AGLA
    from .interventions.controls import EndBias as EndBias
    from .interventions.controls import ImageScale as ImageScale
    from .interventions.controls import RandomHeads as RandomHeads
    from .interventions.controls import WordBias as WordBias
    from .interventions.debias import Debias as Debias
    from .interventions.pai import PAI as PAI
    from .interventions.rebalance import Rebalance as Rebalance
    from .interventions.var import VAR as VAR
    from .interventions.vcd import VCD as VCD
    from .interventions.vdd import VDD as VDD
    from .interventions.vhr import VHR as VHR
    from .interventions.zerotuning import ZeroTuning as ZeroTuning
    from .lvlm import LVLM as LVLM
    from .session import Session as Session
    from .session import intervene as intervene
    from .sinks import SINKS as SINKS
    from .sinks import discover_sinks as discover_sinks

# What users may touch -> its file.
_FILES = {
    "ACT": "interventions.act",
    "AGLA": "interventions.agla",
    "INTERVENTIONS": "interventions",
    "LVLM": "lvlm",
    "PAI": "interventions.pai",
    "SINKS": "sinks",
    "VAR": "interventions.var",
    "VCD": "interventions.vcd",
    "VDD": "interventions.vdd",
    "VHR": "interventions.vhr",
    "Activity": "activity",
    "Answer": "answer",
    "Debias": "interventions.debias",
    "EndBias": "interventions.controls",
    "ImageScale": "interventions.controls",
    "RandomHeads": "interventions.controls",
    "Rebalance": "interventions.rebalance",
    "Session": "session",
    "WordBias": "interventions.controls",
    "ZeroTuning": "interventions.zerotuning",
    "describe": "interventions",
    "discover_sinks": "sinks",
    "intervene": "session",
    "intervention_class": "interventions",
    "parse_intervention": "interventions",
    "parse_interventions": "interventions",
}

__all__ = [
    "ACT",
    "AGLA",
    "INTERVENTIONS",
    "LVLM",
    "PAI",
    "SINKS",
    "VAR",
    "VCD",
    "VDD",
    "VHR",
    "Activity",
    "Answer",
    "Debias",
    "EndBias",
    "ImageScale",
    "RandomHeads",
    "Rebalance",
    "Session",
    "WordBias",
    "ZeroTuning",
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
