from .answer import Answer as Answer
from .interventions import INTERVENTIONS as INTERVENTIONS
from .interventions import check_interventions as check_interventions
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
from .session.activity import Activity as Activity
from .session.session import Session as Session
from .session.session import intervene as intervene
from .session.sinks import SINKS as SINKS
from .session.sinks import discover_sinks as discover_sinks

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
    "check_interventions",
    "describe",
    "discover_sinks",
    "intervene",
    "intervention_class",
    "parse_intervention",
    "parse_interventions",
]
