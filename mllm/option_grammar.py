"""The grammar of `--fix` and `--benchmark`: names with options, written as Python calls.

    vhr(alpha=1.5, layers="2:")
    var(transfer=0.4, dimensions=[12, 97]), pai
    my_package.module:MyFix(strength=2)

Values are Python literals. The short form `vhr:alpha=1.5,layers=1,-4:` is accepted too: there a piece between commas
that does not begin with a name belongs to the value before it, and text needs no quotes.

Nothing here imports torch or the classes that are named, so that a command line can be checked at once: `check_options`
reads the fields of a dataclass from its source.
"""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from ..class_names import choices

__all__ = ["build", "call_text", "check_options", "parse_calls"]

_CALL = re.compile(r"\s*([A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?)\s*(\(.*\))\s*", re.DOTALL)
_SHORT = re.compile(r"\s*([A-Za-z_]\w*(?:[\w.]*:[A-Za-z_]\w*(?!\s*=)\b)?)\s*(?::(.*))?", re.DOTALL)
_OPTION = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


def parse_calls(text: str, known: Collection[str], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of one call, or of several separated by commas.

    Args:
        text: see the module.
        known: names that can stand before a colon without beginning a `package.module:Class`.
        kind: what is named, for messages, such as "intervention".

    Raises:
        ValueError: the text cannot be parsed; the message quotes the wrong part.

    Example:
        >>> parse_calls('vhr(alpha=1.5, layers="2:"), pai', {"vhr", "pai"}, "intervention")
        [('vhr', {'alpha': 1.5, 'layers': '2:'}), ('pai', {})]
        >>> parse_calls("vhr:alpha=1.5,layers=1,-4:", {"vhr", "pai"}, "intervention")
        [('vhr', {'alpha': 1.5, 'layers': '1,-4:'})]
    """
    calls: list[tuple[str, dict[str, Any]]] = []
    short_forms: list[dict[str, str]] = []
    continued: dict[str, str] | None = None  # the options of a short form that the next piece can continue
    for piece in _split(text, kind):
        option, call, short = _OPTION.fullmatch(piece), _CALL.fullmatch(piece), _SHORT.fullmatch(piece)
        if call and not option:
            calls.append((call[1], _arguments(call[1], call[2])))
            continued = None
            continue
        if short and not option and short[1].partition(":")[0] not in {*known} - {short[1]}:
            continued = {}
            short_forms.append(continued)
            calls.append((short[1], continued))
            if short[2] is None:
                continue
            option = _OPTION.fullmatch(short[2])
        if continued is None or (option is None and (short or not continued)):
            raise ValueError(
                f"cannot parse {piece.strip()!r} in the {kind} {text!r}; write NAME or NAME(option=value, option=value)"
            )
        if option is None:
            continued[next(reversed(continued))] += f",{piece}"
        elif option[1] in continued:
            raise ValueError(f"the option {option[1]!r} of {calls[-1][0]} is given twice in {text!r}")
        else:
            continued[option[1]] = option[2]
    unquoted = set(map(id, short_forms))
    return [
        (name, {key: _unquoted(value) for key, value in options.items()} if id(options) in unquoted else options)
        for name, options in calls
    ]


def call_text(name: str, thing: Any) -> str:
    """The call that `parse_calls` and `build` turn into a dataclass of options again; defaults are omitted.

    Example:
        >>> @dataclasses.dataclass
        ... class Boost:
        ...     alpha: float = 2.0
        ...     layers: str = "all"
        >>> call_text("boost", Boost(alpha=3.0, layers="2:")), call_text("boost", Boost())
        ('boost(alpha=3.0, layers="2:")', 'boost')
    """
    options = [
        f"{field.name}={_literal(getattr(thing, field.name))}"
        for field in dataclasses.fields(thing)
        if field.init and field.compare and getattr(thing, field.name) != field.default
    ]
    return f"{name}({', '.join(options)})" if options else name


def build(cls: type[Any], what: str, options: Mapping[str, Any]) -> Any:
    """An instance of a dataclass from names and values.

    Args:
        cls: the dataclass.
        what: its kind and name, for messages, such as "intervention vhr".
        options: name -> value; the others have their defaults.

    Raises:
        ValueError: no such option, or a value of the wrong type or out of range.

    Example:
        >>> from regard.mllm.interventions.vhr import VHR
        >>> build(VHR, "intervention vhr", {"alpha": 1.5}).alpha
        1.5
    """
    hints = get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init and field.compare}
    return cls(**_checked(known, what, options))


def check_options(path: str, what: str, options: Mapping[str, Any]) -> None:
    """Check names and types of options against the source of a dataclass, without importing it.

    Args:
        path: `package.module:Class`.
        what: as in `build`.
        options: name -> value.

    Raises:
        ValueError: no such option, or a value of the wrong type.

    Example:
        >>> check_options("regard.mllm.interventions.vhr:VHR", "intervention vhr", {"alpha": "loud"})
        Traceback (most recent call last):
        ValueError: the option alpha of the intervention vhr must be a number; got 'loud'
    """
    _checked(_declared_options(path), what, options)


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


def _arguments(name: str, brackets: str) -> dict[str, Any]:
    """The keyword arguments of a call, from its brackets."""
    try:
        call = ast.parse(f"call{brackets}", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"cannot parse {name}{brackets}: {getattr(error, 'msg', error)}; write {name}(option=value)"
        ) from None
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"the options of {name} need names: {name}(option=value); got {brackets}")
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        assert keyword.arg is not None
        if keyword.arg in options:
            raise ValueError(f"the option {keyword.arg!r} of {name} is given twice in {brackets}")
        try:
            options[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError):
            raise ValueError(
                f"{keyword.arg}={ast.unparse(keyword.value)} of {name} is not a Python literal; quote text "
                f'({keyword.arg}="..."), and write True, False, None, numbers and [lists]'
            ) from None
    return options


def _unquoted(text: str) -> Any:
    """A value of the short form: a number, true, false, null, a list, or text."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if text[:1] == "[" and text[-1:] == "]":
        return tuple(_unquoted(piece) for piece in _split(text[1:-1], "list")) if text[1:-1].strip() else ()
    if text[:1] == text[-1:] == '"' and len(text) > 1:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text[1:-1]
    return text[1:-1] if text[:1] == text[-1:] == "'" and len(text) > 1 else text


def _literal(value: Any) -> str:
    """A Python literal, with double quotes where no escape is needed."""
    if isinstance(value, str):
        return f'"{value}"' if value.isprintable() and not set(value) & {'"', "\\"} else repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def _checked(known: Mapping[str, Any], what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as values of their types."""
    chosen = {}
    for key, value in options.items():
        if key not in known:
            raise ValueError(f"the {what} has no option {key!r}; {choices(key, known, 'see its documentation')}")
        if isinstance(value, list):
            value = tuple(value)
        elif type(value) in (int, float) and not _fits(known[key], value):
            value = str(value)  # layers=2
        elif type(value) is int and not _fits(known[key], "") and _fits(known[key], 0.5):
            value = float(value)
        if not _fits(known[key], value):
            raise ValueError(f"the option {key} of the {what} must be {_in_words(known[key])}; got {options[key]!r}")
        chosen[key] = value
    return chosen


def _declared_options(path: str) -> dict[str, Any]:
    """Options of a dataclass and their types, from its source; a type that needs an import counts as any."""
    module, _, name = path.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {module}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    [cls] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    names = {**vars(collections.abc), **vars(typing)}
    options = {}
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            try:
                hint = eval(ast.unparse(node.annotation), {}, names)
            except NameError:
                hint = Any
            arguments = node.value.keywords if isinstance(node.value, ast.Call) else []
            hidden = any(one.arg in ("init", "compare") and ast.unparse(one.value) == "False" for one in arguments)
            if get_origin(hint) is not ClassVar and not hidden:
                options[node.target.id] = hint
    return options


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value has an annotated type; types that no text can express fit anything."""
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


def _in_words(hint: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(one) for one in inside)
    if origin is Literal:
        return " or ".join(map(str, inside))
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"[{_in_words(inside[0])}, ...]"
    names = {float: "a number", int: "an integer", bool: "True or False", str: "text", type(None): "None"}
    return names.get(hint, str(hint))
