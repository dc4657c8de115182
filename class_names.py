"""Look up classes by short name: attention blocks, heads, interventions, benchmarks, and your own."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["check_name", "choices", "class_named", "nearest"]

#: Longer lists of known names are cut to the nearest few.
_MAX_LISTED = 8


def class_named(name: str, kind: str, table: Mapping[str, str], package: str) -> type[Any]:
    """Import the class that a name stands for.

    Args:
        name: a key of the table, or `package.module:Class`.
        kind: what it is, for messages.
        table: name -> "module:Class".
        package: the package of these modules.

    Raises:
        ValueError: the name is unknown, or cannot be imported.

    Example:
        >>> class_named("od", "mapping", {"ordered": "collections:OrderedDict"}, "")
        Traceback (most recent call last):
        ValueError: no mapping is called 'od'; Known: ordered, or package.module:Class
    """
    target = f"{package}.{table[name]}" if name in table else name
    module, colon, attribute = target.partition(":")
    if colon:
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"cannot import the {kind} {name!r}: {error}") from error
    check_name(name, kind, table)
    raise AssertionError(name)


def check_name(name: str, kind: str, table: Collection[str]) -> None:
    """Check that a name is in a table or has the form `package.module:Class`; nothing is imported.

    Raises:
        ValueError: it is neither; the nearest name is suggested.
    """
    if name not in table and ":" not in name:
        raise ValueError(f"no {kind} is called {name!r}; {choices(name, table)}, or package.module:Class")


def choices(name: str, known: Iterable[str], more: str = "see 'regard list'") -> str:
    """Describe what could be given instead of an unknown name; long lists are cut to the nearest few.

    Args:
        name: what was given.
        known: all names.
        more: where the others of a long list are found.

    Example:
        >>> choices("alfa", ["alpha", "gamma"])
        "did you mean 'alpha'? Known: alpha, gamma"
        >>> choices("c", [*"abcdefghijk"])
        "did you mean 'c'? Known: c, k, j, i, ... (11 in all, see 'regard list')"
    """
    listed = list(known)
    shown = ", ".join(listed) or "none"
    if len(listed) > _MAX_LISTED:
        close = difflib.get_close_matches(name.lower(), listed, n=4, cutoff=0)
        shown = f"{', '.join(close)}, ... ({len(listed)} in all, {more})"
    return f"{nearest(name, listed)}Known: {shown}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known name was meant; empty if none is near. Case does not matter.

    Example:
        >>> nearest("Alfa", ["alpha", "gamma"])
        "did you mean 'alpha'? "
    """
    folded = {text.lower(): text for text in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return f"did you mean {folded[near[0]]!r}? " if near else ""
