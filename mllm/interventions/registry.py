"""The table of interventions, and their text form.

An intervention is written as a Python call with the options that differ from the defaults, and several are separated by
commas; see `regard.mllm.option_grammar`:

    vhr
    vhr(alpha=1.5, layers="1,-4:")
    var(transfer=0.4, dimensions=[12, 97]), pai(alpha=0.3)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...class_names import check_name, class_named
from ..option_grammar import build, call_text, check_options, parse_calls

if TYPE_CHECKING:
    from ..session.contract import Intervention

__all__ = [
    "INTERVENTIONS",
    "build_intervention",
    "check_interventions",
    "describe",
    "intervention_class",
    "parse_intervention",
    "parse_interventions",
]

#: Name (the same in YAML, command line, code and documentation) -> file and class in this folder.
INTERVENTIONS: dict[str, str] = {
    "var": "var:VAR",
    "vhr": "vhr:VHR",
    "rebalance": "rebalance:Rebalance",
    "pai": "pai:PAI",
    "vcd": "vcd:VCD",
    "vdd": "vdd:VDD",
    "debias": "debias:Debias",
    "agla": "agla:AGLA",
    "act": "act:ACT",
    "zerotuning": "zerotuning:ZeroTuning",
    "end_bias": "controls:EndBias",
    "word_bias": "controls:WordBias",
    "random_heads": "controls:RandomHeads",
    "image_scale": "controls:ImageScale",
}


def intervention_class(name: str) -> type[Any]:
    """The class of an intervention.

    Args:
        name: a key of `INTERVENTIONS`, or `package.module:Class` for your own intervention.

    Raises:
        ValueError: no intervention has that name; the nearest one is suggested.

    Example:
        >>> intervention_class("vhr").__name__
        'VHR'
    """
    return class_named(name, "intervention", INTERVENTIONS, __package__)


def build_intervention(name: str, options: Mapping[str, Any] | None = None) -> Intervention:
    """An intervention from its name and options.

    Args:
        name: as in `intervention_class`.
        options: name -> value; the others have their defaults.

    Raises:
        ValueError: no such intervention or option, or a value of the wrong type or out of range.

    Example:
        >>> build_intervention("vhr", {"alpha": 1.5}).alpha
        1.5
    """
    return build(intervention_class(name), f"intervention {name}", options or {})


def check_interventions(text: str) -> None:
    """Check grammar, names, option names and types of a text form without importing torch.

    The value ranges of options, and interventions of the form `package.module:Class`, are checked by
    `parse_interventions`.

    Raises:
        ValueError: as `parse_interventions`, for what is checked here.

    Example:
        >>> check_interventions("vcd(alfa=2)")
        Traceback (most recent call last):
        ValueError: the intervention vcd has no option 'alfa'; did you mean 'alpha'? Known: alpha, plausible, step, seed
    """
    for name, options in _named([text]):
        check_name(name, "intervention", INTERVENTIONS)
        if name in INTERVENTIONS:
            check_options(f"{__package__}.{INTERVENTIONS[name]}", f"intervention {name}", options)


def parse_intervention(text: str) -> Intervention:
    """One intervention from its text form.

    Raises:
        ValueError: the text names none or several, or as `parse_interventions`.

    Example:
        >>> parse_intervention('vhr(alpha=1.5, layers="1,-4:")').layers
        '1,-4:'
    """
    interventions = parse_interventions(text)
    if len(interventions) != 1:
        raise ValueError(f"one intervention was expected; {text!r} names {len(interventions)}")
    return interventions[0]


def parse_interventions(texts: str | Iterable[str]) -> tuple[Intervention, ...]:
    """Interventions from one text form or several.

    Raises:
        ValueError: a text cannot be parsed, an intervention is named twice, or as `build_intervention`.

    Example:
        >>> [describe(one) for one in parse_interventions('vhr(layers="0:2", alpha=3), pai')]
        ['vhr(alpha=3.0, layers="0:2")', 'pai']
    """
    named = _named([texts] if isinstance(texts, str) else texts)
    built = {name: build_intervention(name, options) for name, options in named}
    names = [one.name for one in built.values()]
    twice = next((one.name for one in built.values() if names.count(one.name) > 1), None)
    if twice is not None:
        raise ValueError(f"two interventions are called {twice!r}: {', '.join(built)}")
    return tuple(built.values())


def describe(interventions: Intervention | Iterable[Intervention]) -> str:
    """The text form of one intervention or several; `parse_interventions` reads it back.

    Example:
        >>> describe(build_intervention("var", {"transfer": 0.4, "dimensions": [12, 97]}))
        'var(transfer=0.4, dimensions=[12, 97])'
    """
    if isinstance(interventions, Iterable):
        return ", ".join(map(describe, interventions))
    cls = type(interventions)
    known = interventions.name in INTERVENTIONS and intervention_class(interventions.name) is cls
    name = interventions.name if known else f"{cls.__module__}:{cls.__qualname__}"
    return call_text(name, interventions) if dataclasses.is_dataclass(interventions) else name


def _named(texts: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        for name, options in parse_calls(text, INTERVENTIONS, "intervention"):
            if name in found:
                raise ValueError(f"the intervention {name} is named twice in {text!r}; give all its options at once")
            found[name] = options
    return list(found.items())
