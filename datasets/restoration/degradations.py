"""The degradations by name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from .albumentations_degradation import Albumentations
from .bicubic import Bicubic, Degradation
from .jpeg import Jpeg
from .noise import Noise
from .real_world import RealWorld

__all__ = ["DEGRADATIONS", "build_degradation"]

#: Name in settings -> what spoils an image.
DEGRADATIONS: dict[str, type[Any]] = {
    "bicubic": Bicubic,
    "noise": Noise,
    "jpeg": Jpeg,
    "real_world": RealWorld,
    "albumentations": Albumentations,
}


def build_degradation(name: str, scale: int, options: Mapping[str, Any] | None = None) -> Degradation:
    """A degradation by its name.

    Args:
        name: one of `DEGRADATIONS`.
        scale: how far it has to shrink.
        options: its own options.

    Raises:
        ValueError: no such degradation or option, a value out of its range, or it does not shrink so far.

    Example:
        >>> build_degradation("bicubic", 4).margin
        16
    """
    if name not in DEGRADATIONS:
        near = difflib.get_close_matches(name, DEGRADATIONS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no degradation is called {name!r}; {hint}Known: {', '.join(DEGRADATIONS)}")
    cls = DEGRADATIONS[name]
    known = [field.name for field in dataclasses.fields(cls) if field.name != "scale"]
    for option in options or {}:
        if option not in known:
            raise ValueError(f"degradation {name} has no option {option!r}; it has {', '.join(known)}")
    try:
        return cls(scale=scale, **(options or {}))
    except TypeError as error:
        raise ValueError(f"degradation {name} does not take {dict(options or {})}: {error}") from error
