"""Types of settings: bounds, text forms and paths, checked before torch is imported.

A rule stands in the annotation, `Annotated[int, Within(1)]`. `check` applies all rules of a settings class: to what the
parser has read, and, by `Checked`, to settings that are made in Python.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ...class_names import nearest
from ..run.shards import parse_shard

__all__ = [
    "BagSource",
    "Checked",
    "ExistingFile",
    "ExistingFolder",
    "ExistingPath",
    "Exists",
    "Fraction",
    "HighQualityImages",
    "ImageSource",
    "MemorySize",
    "NamedFile",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Parsed",
    "PositiveFloat",
    "PositiveInt",
    "ShardText",
    "Within",
    "check",
    "members_of",
    "parse_bytes",
    "settings_hints",
]


@dataclass(frozen=True)
class Within:
    """Bounds of a number.

    Attributes:
        low: smallest value; None is without bound.
        high: largest value; None is without bound.
        open_low: `low` itself is excluded.
        open_high: `high` itself is excluded.
    """

    low: float | int | None = None
    high: float | int | None = None
    open_low: bool = False
    open_high: bool = False

    def __call__(self, value: float | int, key: str) -> None:
        """Raise ValueError where the value is outside."""
        too_low = self.low is not None and (value <= self.low if self.open_low else value < self.low)
        too_high = self.high is not None and (value >= self.high if self.open_high else value > self.high)
        if too_low or too_high or value != value:
            raise ValueError(f"--{key} is {value}; give {self}")

    def __str__(self) -> str:
        if self.high is None:
            return f"more than {self.low:g}" if self.open_low else f"{self.low:g} or more"
        low = f"above {self.low:g}" if self.open_low else f"{self.low:g}"
        return f"{low} to {'below ' if self.open_high else ''}{self.high:g}"


@dataclass(frozen=True)
class Exists:
    """A path that must exist: a file, a folder, or either.

    Attributes:
        kind: what must exist.
        names: words that are allowed without a file of that name.
        prefixes: beginnings of words that are allowed, such as "hf:".
    """

    kind: Literal["file", "folder", "file or folder"]
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def __call__(self, value: str, key: str) -> None:
        """Raise ValueError where the path is missing or of another kind."""
        if value.startswith(self.prefixes) and self.prefixes:
            return
        path = Path(value)
        found = {"file": path.is_file, "folder": path.is_dir, "file or folder": path.exists}[self.kind]()
        if not found and value not in self.names:
            problem = f"{value} is not a {self.kind}" if path.exists() else f"there is no {self.kind} {value}"
            words = [*self.names, *(f"{prefix}NAME" for prefix in self.prefixes)]
            names = f", or {', '.join(words)}" if words else ""
            near = nearest(value, self.names)
            verb = "Give" if near else "give"
            raise ValueError(f"--{key}: {problem}; {near}{verb} the path of a {self.kind}{names}")


@dataclass(frozen=True)
class Parsed:
    """A text of a form that a function reads.

    Attributes:
        read: raises ValueError, with the whole message, where the text has another form.
    """

    read: Callable[[str], Any]

    def __call__(self, value: str, key: str) -> None:
        """Raise ValueError where the text cannot be read."""
        self.read(value)


def parse_bytes(text: str) -> float:
    """Read a number of bytes with its unit.

    Raises:
        ValueError: the text has another form.

    Example:
        >>> parse_bytes("1.5GB"), parse_bytes("800 mb")
        (1500000000.0, 800000000.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])?i?b?\s*", text.lower())
    if not found or float(found[1]) == 0:
        raise ValueError(f"--memory is {text!r}; give a number with a unit, such as 4GB or 800MB")
    return float(found[1]) * 10 ** {None: 0, "k": 3, "m": 6, "g": 9, "t": 12}[found[2]]


def _check_named_file(text: str) -> None:
    name, equals, file = text.partition("=")
    if not (name and equals and Path(file).is_file()):
        raise ValueError(f"{text!r} is not NAME=FILE with a file that exists; give a name and the path of its file")


PositiveInt = Annotated[int, Within(1)]
NonNegativeInt = Annotated[int, Within(0)]
PositiveFloat = Annotated[float, Within(0, open_low=True)]
NonNegativeFloat = Annotated[float, Within(0)]
Fraction = Annotated[float, Within(0, 1)]
ExistingFile = Annotated[str, Exists("file")]
ExistingFolder = Annotated[str, Exists("folder")]
ExistingPath = Annotated[str, Exists("file or folder")]
ImageSource = Annotated[str, Exists("file or folder", ("digits", "scenes"), ("torchvision:", "hf:"))]
BagSource = Annotated[
    str,
    Exists("file or folder", ("ucsb", "musk1", "musk2", "elephant", "mil_shortcut", "mil_noise", "mil_rare")),
]
HighQualityImages = Annotated[str, Exists("file or folder", ("photographs",), ("photographs:",))]
MemorySize = Annotated[str, Parsed(parse_bytes)]
NamedFile = Annotated[str, Parsed(_check_named_file)]
ShardText = Annotated[str, Parsed(parse_shard)]


class Checked:
    """Base of settings, which checks them when they are made.

    A subclass that has settings which must go together checks these in `check_together`.
    """

    def __post_init__(self) -> None:
        check(type(self), self)
        self.check_together()

    def check_together(self) -> None:
        """Raise ValueError where two settings do not go together."""


def check(settings: type, values: Any, prefix: str = "") -> None:
    """Check values against the annotations of a settings class.

    Args:
        settings: dataclass whose annotations have the rules.
        values: an object with the fields as attributes, nested like the class.
        prefix: of the keys in messages, such as "images.".

    Raises:
        ValueError: a value is not allowed; names its key, and what is allowed.

    Example:
        >>> from regard.tools.settings import AskSettings
        >>> AskSettings(image="example", question="?", beams=0)
        Traceback (most recent call last):
        ValueError: --beams is 0; give 1 or more
    """
    for name, hint in settings_hints(settings).items():
        _check_value(hint, getattr(values, name), f"{prefix}{name}")


@cache
def settings_hints(settings: type) -> dict[str, Any]:
    """Annotations of the fields of a dataclass, with their rules."""
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


def members_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _check_value(hint: Any, value: Any, key: str) -> None:
    fitting = [member for member in members_of(hint) if _fits(member, value)]
    if not fitting:
        choices = [
            choice for member in members_of(hint) if get_origin(member) is Literal for choice in get_args(member)
        ]
        raise ValueError(f"--{key} is {value!r}; give {' or '.join(map(str, choices)) or 'a value of another type'}")
    hint = fitting[0]
    rules: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rules = get_args(hint)  # type: ignore[assignment]
    if get_origin(hint) is list:
        for item in value:
            _check_value(get_args(hint)[0], item, key)
    elif dataclasses.is_dataclass(hint):
        check(hint, value, f"{key}.")  # type: ignore[arg-type]
    for rule in rules:
        rule(value, key)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, whatever its bounds."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is Any:
        return True
    if dataclasses.is_dataclass(hint):
        return not isinstance(value, str | int | float | list | types.NoneType)
    plain = get_origin(hint) or hint
    return isinstance(value, plain) or (plain is float and isinstance(value, int))
