"""Classes by their short names: attention blocks, heads, interventions, benchmarks, and custom ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["check_name", "class_named", "nearest"]


def class_named(name: str, kind: str, table: Mapping[str, str], package: str) -> type[Any]:
    """The class that a table has under a name.

    Args:
        name: a key of the table, or `package.module:Class`.
        kind: what it is, for messages.
        table: name -> "file:Class".
        package: where the files are.

    Raises:
        ValueError: there is none of that name, and which is nearest; or it cannot be imported.

    Example:
        >>> class_named("od", "mapping", {"ordered": "collections:OrderedDict"}, "")
        Traceback (most recent call last):
        ValueError: no mapping is called 'od'; Known: ordered, or package.module:Class
    """
    place = f"{package}.{table[name]}" if name in table else name
    module, colon, attribute = place.partition(":")
    if colon:
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"cannot import the {kind} {name!r}: {error}") from error
    check_name(name, kind, table)
    raise AssertionError(name)


def check_name(name: str, kind: str, table: Iterable[str]) -> None:
    """Check that a name is in a table or has the form `package.module:Class`; imports nothing.

    Raises:
        ValueError: it is neither; the nearest name is suggested.
    """
    if name not in table and ":" not in name:
        hint = nearest(name.lower(), table)
        raise ValueError(f"no {kind} is called {name!r}; {hint}Known: {', '.join(table)}, or package.module:Class")


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known name, or nothing.

    Example:
        >>> nearest("alfa", ["alpha", "gamma"])
        "did you mean 'alpha'? "
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""
