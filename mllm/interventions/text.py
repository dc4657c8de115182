"""The text form of methods, for the command line and the names of results.

A method is written as its name, and after a colon those of its options that are not the defaults, joined by commas:

    vhr
    vhr:alpha=1.5,layers=1,-4:
    var:transfer=0.4,dimensions=[12,97],pai:alpha=0.3

A piece between commas that begins with a word begins the next method, or with `word=` the next option; any other goes
on with the value before it, so the layers `1,-4:` need no quotes. Brackets and quotes hold commas together. Values are
JSON - numbers, true, false, null, "text", [lists] - and what is not JSON is text.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .table import INTERVENTIONS, build_intervention, intervention_class

if TYPE_CHECKING:
    from ..edit import Intervention

__all__ = ["describe", "parse_intervention", "parse_interventions"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_OPTION = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_METHOD = re.compile(r"\s*([A-Za-z_]\w*(?:[\w.]*:[A-Za-z_]\w*(?!\s*=)\b)?)\s*(?::(.*))?", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None, "none": None}


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
        for name, options in _read(text):
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
    if not dataclasses.is_dataclass(method):
        return name
    options = [
        f"{field.name}={_written(getattr(method, field.name))}"
        for field in dataclasses.fields(method)
        if field.init and field.compare and getattr(method, field.name) != field.default
    ]
    return f"{name}:{','.join(options)}" if options else name


def _read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and options, as they are written."""
    methods: list[tuple[str, dict[str, str]]] = []
    for piece in _split(text):
        option, method = _OPTION.fullmatch(piece), _METHOD.fullmatch(piece)
        if method and not option and method[1].partition(":")[0] not in {*INTERVENTIONS} - {method[1]}:
            methods.append((method[1], {}))
            if method[2] is None:
                continue
            option = _OPTION.fullmatch(method[2])
        if not methods or (option is None and not methods[-1][1]) or (option is None and method):
            raise ValueError(
                f"cannot read {piece.strip()!r} in the methods {text!r}; write name, or name:option=value,option=value"
            )
        options = methods[-1][1]
        if option is None:
            last = next(reversed(options))
            options[last] += f",{piece}"
        elif option[1] in options:
            raise ValueError(f"the option {option[1]} of {methods[-1][0]} is given twice in {text!r}")
        else:
            options[option[1]] = option[2]
    return [(name, {key: _value(value) for key, value in options.items()}) for name, options in methods]


def _split(text: str) -> list[str]:
    """The pieces between commas that are in no brackets or quotes."""
    pieces, closing, quote, escaped = [""], "", "", False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "\"'":
            quote = letter
        elif letter in "[({":
            closing = {"[": "]", "(": ")", "{": "}"}[letter] + closing
        elif letter in "])}":
            if not closing.startswith(letter):
                raise ValueError(f"{letter!r} in the methods {text!r} closes nothing")
            closing = closing[1:]
        elif letter == "," and not closing:
            pieces.append("")
            continue
        pieces[-1] += letter
    if quote or closing:
        raise ValueError(f"{quote or closing!r} is missing at the end of the methods {text!r}")
    return pieces


def _value(text: str) -> Any:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] == "[" and text[-1:] == "]":
        return tuple(_value(piece) for piece in _split(text[1:-1])) if text[1:-1].strip() else ()
    if text[:1] == text[-1:] == '"' and len(text) > 1:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text[1:-1]
    return text[1:-1] if text[:1] == text[-1:] == "'" and len(text) > 1 else text


def _written(value: Any) -> str:
    if isinstance(value, str):
        if re.search(r"[\"'\[\](){}\\]", value) or value != value.strip() or not value or _value(value) != value:
            return json.dumps(value)
        goes_on = all(piece.strip() and not re.match(r"\s*[A-Za-z_]", piece) for piece in value.split(",")[1:])
        return value if goes_on else json.dumps(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Sequence):
        return f"[{','.join(map(_written, value))}]"
    return json.dumps(value)
