"""The text form of things that have a name and options - methods, benchmarks - as a command line takes them.

The name, and after a colon those of the options that are not the defaults, joined by commas:

    vhr:alpha=1.5,layers=1,-4:

A piece between commas that begins with a word begins the next thing, or with `word=` the next option; any other goes on
with the value before it, so the layers `1,-4:` need no quotes. Brackets and quotes hold commas together. Values are
JSON - numbers, true, false, null, "text", [lists] - and what is not JSON is text.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

__all__ = ["options_text", "read_named"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_OPTION = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_METHOD = re.compile(r"\s*([A-Za-z_]\w*(?:[\w.]*:[A-Za-z_]\w*(?!\s*=)\b)?)\s*(?::(.*))?", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def read_named(text: str, known: Collection[str], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and options from their text form, which the head of this module describes.

    Args:
        text: one thing, or several joined by commas.
        known: names that may stand before a colon without beginning a `package.module:Class`.
        kind: what they are, for messages.

    Raises:
        ValueError: the text cannot be read; says which piece.

    Example:
        >>> read_named("vhr:alpha=1.5,layers=1,-4:,pai", {"vhr", "pai"}, "methods")
        [('vhr', {'alpha': 1.5, 'layers': '1,-4:'}), ('pai', {})]
    """
    methods: list[tuple[str, dict[str, str]]] = []
    for piece in _split(text, kind):
        option, method = _OPTION.fullmatch(piece), _METHOD.fullmatch(piece)
        if method and not option and method[1].partition(":")[0] not in {*known} - {method[1]}:
            methods.append((method[1], {}))
            if method[2] is None:
                continue
            option = _OPTION.fullmatch(method[2])
        if not methods or (option is None and not methods[-1][1]) or (option is None and method):
            raise ValueError(
                f"cannot read {piece.strip()!r} in the {kind} {text!r}; write name, or name:option=value,option=value"
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


def _split(text: str, kind: str) -> list[str]:
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
                raise ValueError(f"{letter!r} in the {kind} {text!r} closes nothing")
            closing = closing[1:]
        elif letter == "," and not closing:
            pieces.append("")
            continue
        pieces[-1] += letter
    if quote or closing:
        raise ValueError(f"{quote or closing!r} is missing at the end of the {kind} {text!r}")
    return pieces


def _value(text: str) -> Any:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] == "[" and text[-1:] == "]":
        return tuple(_value(piece) for piece in _split(text[1:-1], "list")) if text[1:-1].strip() else ()
    if text[:1] == text[-1:] == '"' and len(text) > 1:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text[1:-1]
    return text[1:-1] if text[:1] == text[-1:] == "'" and len(text) > 1 else text


def options_text(name: str, thing: Any) -> str:
    """The text form of a dataclass of options with a name, without the options that are the defaults.

    Example:
        >>> @dataclasses.dataclass
        ... class Boost:
        ...     alpha: float = 2.0
        >>> options_text("boost", Boost(alpha=3.0)), options_text("boost", Boost())
        ('boost:alpha=3', 'boost')
    """
    options = [
        f"{field.name}={_written(getattr(thing, field.name))}"
        for field in dataclasses.fields(thing)
        if field.init and field.compare and getattr(thing, field.name) != field.default
    ]
    return f"{name}:{','.join(options)}" if options else name


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
