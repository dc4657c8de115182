"""A dataclass of options from names and values, checked against its annotations."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..class_names import nearest

__all__ = ["with_options"]


def with_options(cls: type[Any], what: str, options: Mapping[str, Any]) -> Any:
    """An object of options.

    Args:
        cls: a dataclass.
        what: what it is and its name, for messages.
        options: name -> value; those that are left out have the defaults.

    Raises:
        ValueError: no such option, or a value of the wrong type or out of range.

    Example:
        >>> from regard.mllm.interventions.vhr import VHR
        >>> with_options(VHR, "the method vhr", {"alpha": 1.5}).alpha
        1.5
    """
    known = {field.name: field for field in dataclasses.fields(cls) if field.init and field.compare}
    hints = get_type_hints(cls)
    chosen = {}
    for key, value in options.items():
        if key not in known:
            raise ValueError(
                f"{what} has no option {key!r}; {nearest(key, known)}Its options: {', '.join(known) or 'none'}"
            )
        if isinstance(value, list):
            value = tuple(value)
        elif type(value) in (int, float) and not _fits(hints[key], value):
            value = str(value)  # layers=2
        elif type(value) is int and not _fits(hints[key], "") and _fits(hints[key], 0.5):
            value = float(value)
        if not _fits(hints[key], value):
            raise ValueError(f"{what} takes {key} as {_plain(hints[key])}; got {options[key]!r}")
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
