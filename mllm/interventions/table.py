"""The table of methods: their names, their classes, and how one is built from options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...class_names import class_named
from ..named_options import with_options

if TYPE_CHECKING:
    from ..session.edit import Intervention

__all__ = ["INTERVENTIONS", "build_intervention", "intervention_class"]

#: Name of a method (the same in YAML, command line, code and documents) -> file and class in this folder.
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
    """The class of a method by its name.

    Args:
        name: a key of `INTERVENTIONS`, or `package.module:Class` for a method of your own.

    Raises:
        ValueError: no method has that name; the nearest one is suggested.

    Example:
        >>> intervention_class("vhr").__name__
        'VHR'
    """
    return class_named(name, "method", INTERVENTIONS, __package__)


def build_intervention(name: str, options: Mapping[str, Any] | None = None) -> Intervention:
    """A method from its name and options.

    Args:
        name: as in `intervention_class`.
        options: of the method; those that are left out have its defaults.

    Raises:
        ValueError: no such method or option, or a value of the wrong type or out of range.

    Example:
        >>> build_intervention("vhr", {"alpha": 1.5}).alpha
        1.5
    """
    return with_options(intervention_class(name), f"the method {name}", options or {})
