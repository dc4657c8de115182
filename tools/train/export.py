"""A model as a folder that timm loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from ...whole_files import whole_folder

__all__ = ["export"]


def export(model: Any, folder: Path, *, config: Mapping[str, Any] | None = None, **named: Any) -> None:
    """Write model.safetensors and config.json, whole or not at all, for `timm.create_model("local-dir:FOLDER")`.

    Args:
        model: what `create_model` gave.
        folder: where to; what is there is replaced.
        config: what differs from the model's own `pretrained_cfg`, such as how it gets its images.
        named: further entries of config.json, such as `label_names`.
    """
    model.pretrained_cfg = {**model.pretrained_cfg, **(config or {})}
    model.to(memory_format=torch.contiguous_format)  # safetensors accepts no other
    with whole_folder(folder) as partial:
        timm.models.save_for_hf(model, str(partial), model_config=named, safe_serialization=True)
