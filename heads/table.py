"""The table of heads by name, and how a head is built from its options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..class_names import class_named, nearest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["HEADS", "build_head", "head_class"]

#: Name of a head (the same in YAML, command line, code and documents) -> file and class in this folder.
HEADS: dict[str, str] = {
    "mean": "pooling:MeanMIL",
    "max": "pooling:MaxMIL",
    "abmil": "abmil:ABMIL",
    "abmil_mha": "abmil_mha:MultiHeadABMIL",
    "clam_sb": "clam:ClamSB",
    "clam_mb": "clam:ClamMB",
    "dsmil": "dsmil:DSMIL",
    "transmil": "transmil:TransMIL",
    "dtfd": "dtfd:DTFD",
    "ilra": "ilra:ILRA",
    "ibmil": "ibmil:IBMIL",
    "acmil": "acmil:ACMIL",
    "acmil_mha": "acmil_mha:MultiHeadACMIL",
    "mhim": "mhim:MHIM",
    "ins": "ins:INS",
}


def head_class(name: str) -> type[Any]:
    """The class of a head by its name.

    Args:
        name: a key of `HEADS`, or `package.module:Class` for a custom head.

    Raises:
        ValueError: there is no such head; the nearest name is suggested.

    Example:
        >>> head_class("acmil").__name__
        'ACMIL'
    """
    return class_named(name, "head", HEADS, __package__)


def build_head(name: str, dim_in: int, num_classes: int = 2, **own: Any) -> nn.Module:
    """Build a head by name.

    Args:
        name: as in `head_class`.
        dim_in: width of an instance's features, at least 1.
        num_classes: number of classes, at least 1.
        own: keyword arguments of the head.

    Raises:
        ValueError: an unknown name, an option that the head does not have, or a width below 1.

    Example:
        >>> build_head("acmil", 384, 3, branches=5).num_classes
        3
    """
    cls = head_class(name)
    known = [key for key in inspect.signature(cls).parameters if key not in ("dim_in", "num_classes")]
    for key in own:
        if key not in known:
            raise ValueError(
                f"the head {name} has no option {key!r}; {nearest(key, known)}Its options: {', '.join(known) or 'none'}"
            )
    if dim_in < 1 or num_classes < 1:
        raise ValueError(f"dim_in is {dim_in} and num_classes is {num_classes}; both must be at least 1")
    return cls(dim_in, num_classes, **own)
