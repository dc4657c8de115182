"""The help page of a task, from its settings class."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from docstring_parser import parse_from_object

from ..settings.types import Exists, Parsed, members_of, settings_hints

__all__ = ["described", "entry", "help_page", "in_words", "summary"]

_COLUMN, _WIDTH = 23, 80


def help_page(command: str, settings: type) -> str:
    """Write the help page of a task.

    Args:
        command: such as "regard ask".
        settings: its settings class. `HEADINGS` (first option -> heading) divides its options.
    """
    fields = _in_order(settings)
    positional = [field for field in fields if "positional" in field.metadata]
    options = [field for field in fields if "positional" not in field.metadata]
    words = " ".join(map(_positional, positional))
    lines = [f"usage: {command} {f'{words} ' if words else ''}[options]", "", *_wrapped(summary(settings), 0), ""]
    hints, about = settings_hints(settings), described(settings)
    for field in positional:
        lines += entry(field.name.upper(), about[field.name].removesuffix("."))
    lines += [""] if positional else []
    headings: Mapping[str, str] = getattr(settings, "HEADINGS", {})
    nested = [field for field in options if dataclasses.is_dataclass(hints[field.name])]
    plain = [field for field in options if field not in nested]
    if plain and plain[0].name not in headings:
        lines.append("options:")
    for field in plain:
        if field.name in headings:
            lines += [f"{headings[field.name]}:"]
        required = _is_required(field)
        shown = about[field.name].removesuffix(".") + (" (required)" if required else _default(field))
        hint = get_args(hints[field.name])[0] if "repeated" in field.metadata else hints[field.name]
        lines += entry(f"--{field.name} {_metavar(hint, field.name)}", shown)
        for item in _items(hints[field.name]):
            lines += entry(item.name, described(_item_class(hints[field.name]))[item.name], indent=6)
    for field in nested:
        lines += [f"{about[field.name].rstrip('.')}:"]
        inner = hints[field.name]
        for own in _in_order(inner):
            shown = described(inner)[own.name].removesuffix(".") + _default(own)
            lines += entry(f"--{field.name}.{own.name} {_metavar(settings_hints(inner)[own.name], own.name)}", shown)
    lines += ["from a file:", *entry("--config FILE", "YAML file, or name of a recipe (`regard list`)")]
    lines += entry("--print_config", "print the settings as YAML, and exit")
    return "\n".join(lines) + "\n"


def described(settings: type) -> dict[str, str]:
    """Descriptions of every field, from the docstrings of a settings class and of its bases."""
    about: dict[str, str] = {}
    for cls in reversed(settings.__mro__):
        if dataclasses.is_dataclass(cls):
            found = parse_from_object(cls).params
            about |= {one.arg_name: " ".join((one.description or "").split()) for one in found}
    return about


def summary(settings: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join((inspect.getdoc(settings) or "").partition("\n\n")[0].split())


def in_words(hint: Any) -> str:
    """What values of a type are called in messages.

    Example:
        >>> in_words(int | None)
        'a whole number or null'
    """
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    words = []
    for member in members_of(hint):
        if get_origin(member) is Literal:
            words += [str(choice) for choice in get_args(member)]
        elif get_origin(member) is list:
            words.append(f"a list [...] of {in_words(get_args(member)[0])}")
        elif get_origin(member) is dict:
            words.append("a mapping {key: value, ...}")
        else:
            words.append(names.get(member, "a mapping of settings"))
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _in_order(settings: type) -> list[dataclasses.Field[Any]]:
    """Fields of the class before those of its bases."""
    own = [name for cls in settings.__mro__ for name in inspect.get_annotations(cls)]
    return sorted(dataclasses.fields(settings), key=lambda field: own.index(field.name))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _positional(field: dataclasses.Field[Any]) -> str:
    word = field.name.upper()
    if field.type.startswith("list"):
        word += " ..."
    return word if _is_required(field) else f"[{word}]"


def entry(name: str, text: str, indent: int = 2) -> Iterator[str]:
    """An option and what it does, in two columns."""
    column = _COLUMN + indent - 2
    lines = _wrapped(text, column)
    first = " " * indent + name
    if len(first) < column - 1:
        yield first.ljust(column) + lines[0].lstrip()
        lines = lines[1:]
    else:
        yield first
    yield from lines


def _wrapped(text: str, indent: int) -> list[str]:
    own = {"initial_indent": " " * indent, "subsequent_indent": " " * indent}
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False, **own) or [""]  # type: ignore


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is dataclasses.MISSING or value is None or value in ([], {}, "") or value is False:
        return ""
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
    return "" if len(str(shown)) > 30 else f" (default: {shown})"


def _metavar(hint: Any, name: str) -> str:
    """What stands for the value: its choices, or its kind."""
    words = []
    for member in members_of(hint):
        rules = get_args(member)[1:] if get_origin(member) is Annotated else ()
        plain = get_args(member)[0] if get_origin(member) is Annotated else member
        if get_origin(plain) is Literal:
            words += [str(choice) for choice in get_args(plain)]
        elif any(isinstance(rule, Exists) for rule in rules):
            words.append("PATH")
        elif any(isinstance(rule, Parsed) for rule in rules):
            words.append(name.upper())
        elif plain is bool:
            words.append("true|false")
        elif get_origin(plain) is list and dataclasses.is_dataclass(get_args(plain)[0]):
            words.append("[...]")
        elif get_origin(plain) is list:
            words.append(f"[{_metavar(get_args(plain)[0], name)},...]")
        elif get_origin(plain) is dict:
            words.append("{...}")
        elif plain is not type(None):
            words.append({int: "N", float: "X"}.get(plain, "TEXT"))
    return "|".join(words)


def _item_class(hint: Any) -> Any:
    return get_args(hint)[0]


def _items(hint: Any) -> list[dataclasses.Field[Any]]:
    """Fields of the items, where the option is a list of settings."""
    if get_origin(hint) is list and dataclasses.is_dataclass(_item_class(hint)):
        return list(dataclasses.fields(_item_class(hint)))
    return []
