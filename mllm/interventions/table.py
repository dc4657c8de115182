"""The table of methods: their names, their classes, and how one is built from options."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..class_names import class_named, nearest

if TYPE_CHECKING:
    from ..edit import Intervention

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
    cls = intervention_class(name)
    known = {field.name: field for field in dataclasses.fields(cls) if field.init and field.compare}
    hints = get_type_hints(cls)
    chosen = {}
    options = options or {}
    for key, value in options.items():
        if key not in known:
            raise ValueError(
                f"the method {name} has no option {key!r}; {nearest(key, known)}Its options: "
                f"{', '.join(known) or 'none'}"
            )
        if isinstance(value, list):
            value = tuple(value)
        elif type(value) in (int, float) and not _fits(hints[key], value):
            value = str(value)  # layers=2
        elif type(value) is int and not _fits(hints[key], "") and _fits(hints[key], 0.5):
            value = float(value)
        if not _fits(hints[key], value):
            raise ValueError(f"the method {name} takes {key} as {_plain(hints[key])}; got {options[key]!r}")
        chosen[key] = value
    return cls(**chosen)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of an annotated type; types that no text can mean fit anything."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(one, value) for one in inside)
    if origin is Literal:
        return value in inside
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Collection):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(inside[0], v) for v in value)
    return True


def _plain(hint: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_plain(one) for one in inside)
    if origin is Literal:
        return " or ".join(map(str, inside))
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"[{_plain(inside[0])}, ...]"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(hint, str(hint))
