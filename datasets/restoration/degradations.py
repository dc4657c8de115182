"""Build a degradation by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...class_names import choices
from .albumentations_degradation import Albumentations
from .bicubic import Bicubic, Degradation
from .jpeg import Jpeg
from .noise import Noise
from .real_world import RealWorld

__all__ = ["DEGRADATIONS", "build_degradation"]

#: Name in settings -> degradation.
DEGRADATIONS: dict[str, type[Any]] = {
    "bicubic": Bicubic,
    "noise": Noise,
    "jpeg": Jpeg,
    "real_world": RealWorld,
    "albumentations": Albumentations,
}


def build_degradation(name: str, scale: int, options: Mapping[str, Any] | None = None) -> Degradation:
    """Build a degradation.

    Args:
        name: one of `DEGRADATIONS`.
        scale: factor by which it must shrink.
        options: its options.

    Raises:
        ValueError: the degradation or an option is unknown, a value is out of range, or it cannot shrink by `scale`.

    Example:
        >>> build_degradation("bicubic", 4).margin
        16
    """
    if name not in DEGRADATIONS:
        raise ValueError(f"no degradation is called {name!r}; {choices(name, DEGRADATIONS)}")
    cls = DEGRADATIONS[name]
    known = [field.name for field in dataclasses.fields(cls) if field.name != "scale"]
    for option in options or {}:
        if option not in known:
            raise ValueError(f"degradation {name} has no option {option!r}; {choices(option, known)}")
    try:
        return cls(scale=scale, **(options or {}))
    except TypeError as error:
        raise ValueError(f"degradation {name} does not accept {dict(options or {})}: {error}") from error
