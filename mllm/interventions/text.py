"""The text form of methods, for the command line and the names of results.

A method is written as its name, and after a colon its options; `regard.mllm.option_grammar` tells the rest:

    vhr
    vhr:alpha=1.5,layers=1,-4:
    var:transfer=0.4,dimensions=[12,97],pai:alpha=0.3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..option_grammar import options_text, read_named
from .table import INTERVENTIONS, build_intervention, intervention_class

if TYPE_CHECKING:
    from ..session.edit import Intervention

__all__ = ["describe", "parse_intervention", "parse_interventions"]


def parse_intervention(text: str) -> Intervention:
    """A method from its text form, which the head of this module describes.

    Raises:
        ValueError: the text names no method or several, or cannot be read, or what `build_intervention` raises.

    Example:
        >>> parse_intervention("vhr:alpha=1.5,layers=1,-4:").layers
        '1,-4:'
    """
    methods = parse_interventions(text)
    if len(methods) != 1:
        raise ValueError(f"one method was expected; {text!r} names {len(methods)}")
    return methods[0]


def parse_interventions(texts: str | Iterable[str]) -> tuple[Intervention, ...]:
    """Methods from their text form, several joined by commas, or several texts.

    Raises:
        ValueError: as in `parse_intervention`; or a method is named twice.

    Example:
        >>> [describe(method) for method in parse_interventions("vhr:layers=0:2,alpha=3,pai")]
        ['vhr:alpha=3,layers=0:2', 'pai']
    """
    found: dict[str, Intervention] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        for name, options in read_named(text, INTERVENTIONS, "methods"):
            method = build_intervention(name, options)
            if method.name in found:
                raise ValueError(f"the method {name} is named twice in {text!r}; once, with all its options, would do")
            found[method.name] = method
    return tuple(found.values())


def describe(method: Intervention) -> str:
    """The text form of a method, with the options that are not the defaults; `parse_intervention` reads it back.

    Example:
        >>> describe(build_intervention("var", {"transfer": 0.4, "dimensions": [12, 97]}))
        'var:transfer=0.4,dimensions=[12,97]'
    """
    cls = type(method)
    ours = method.name in INTERVENTIONS and intervention_class(method.name) is cls
    name = method.name if ours else f"{cls.__module__}:{cls.__qualname__}"
    return options_text(name, method) if dataclasses.is_dataclass(method) else name
