"""JSON that every reader accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["strict_json"]


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON in ASCII in which numbers that are not finite are null.

    Args:
        value: of JSON's types.
        indent: spaces of a level; None writes one line.

    Example:
        >>> strict_json({"a": float("nan"), "b": (1, 2.5)})
        '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False, separators=(",", ": " if indent else ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(own) for own in value]
    return value
