"""Restorers by name or folder, including the bundled one."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import timm
from torch import nn

__all__ = ["DEFAULT", "embedded_restorers", "find_restorer", "load_restorer"]

#: The default bundled restorer.
DEFAULT = "hat_photo_x2"


def embedded_restorers() -> dict[str, Path]:
    """Name -> folder of every bundled restorer.

    Example:
        >>> DEFAULT in embedded_restorers()
        True
    """
    root = Path(str(files("regard.vision.backbones"))) / "embedded"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def find_restorer(source: str) -> Path | None:
    """The folder of an exported restorer; None if `source` is not one.

    Args:
        source: the name of a bundled restorer; or a folder that `regard train restorer` exported, or its parent.

    Example:
        >>> find_restorer("nothing like that") is None
        True
    """
    known = embedded_restorers()
    if source in known:
        return known[source]
    found = next((path for path in (Path(source), Path(source, "model")) if (path / "config.json").is_file()), None)
    if found is None:
        return None
    try:
        config = json.loads((found / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    architecture = str(config.get("architecture", "")) if isinstance(config, dict) else ""
    return found if architecture.startswith("hat_") and not config.get("label_names") else None


def load_restorer(source: str) -> nn.Module:
    """A restorer in evaluation mode, with its weights.

    Args:
        source: as in `find_restorer`.

    Raises:
        ValueError: there is no such restorer, or its files are damaged.

    Example:
        >>> import torch
        >>> load_restorer("hat_photo_x2")(torch.rand(1, 3, 9, 12)).shape
        torch.Size([1, 3, 18, 24])
    """
    folder = find_restorer(source)
    if folder is None:
        raise ValueError(
            f"{source} is neither a bundled restorer ({', '.join(embedded_restorers())}) nor a folder that "
            "`regard train restorer` exported"
        )
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # damaged files raise many kinds of errors
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"the restorer in {folder} cannot be loaded: {reason}") from error
