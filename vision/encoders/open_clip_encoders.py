"""Encoders from open_clip: the image tower of any of its models."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .encoder import PatchEncoder

__all__ = ["ImageTower", "from_open_clip"]


class ImageTower(nn.Module):
    """The image tower of a CLIP model.

    Args:
        visual: its image tower.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One vector an image, not normalised; further outputs of a CoCa are dropped."""
        found = self.visual(images)
        return found[0] if isinstance(found, tuple) else found


def from_open_clip(named: str, weights: str | Path | None) -> PatchEncoder:
    """An encoder from a model of open_clip.

    Args:
        named: `ARCH@TAG` with a tag of published weights, `ARCH` with a file, or `hf-hub:ID` or `local-dir:FOLDER`.
        weights: that file: safetensors, or PyTorch's read with `weights_only`.

    Raises:
        ValueError: there is no such architecture or tag, no weights, or they do not fit.
    """
    architecture, _, tag = named.partition("@")
    located = architecture.startswith(("hf-hub:", "local-dir:"))
    if not located and not (tag or weights):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(
            f"open_clip:{named} has no weights; write open_clip:{architecture or 'ARCH'}@TAG (tags: {tags}), or give "
            "weights=FILE"
        )
    try:
        model = open_clip.create_model(
            architecture, str(weights) if weights else tag or None, weights_only=True, require_pretrained=True
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"cannot load open_clip:{named}: {' '.join(str(error).split())[:300]}. Give open_clip:ARCH@TAG of "
            "open_clip.list_pretrained(), or open_clip:ARCH with weights=FILE"
        ) from error
    visual = model.visual
    cfg = getattr(visual, "preprocess_cfg", {})
    side = cfg.get("size", visual.image_size)
    side = int(side if isinstance(side, int) else side[0])
    tower = ImageTower(visual).eval()
    with torch.inference_mode():
        dim = tower(torch.zeros(1, 3, side, side)).shape[-1]
    interpolation = "bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic"
    mean, std = cfg.get("mean", open_clip.OPENAI_DATASET_MEAN), cfg.get("std", open_clip.OPENAI_DATASET_STD)
    return PatchEncoder(
        tower,
        name=f"open_clip:{named}",
        dim=dim,
        size=side,
        mean=mean,
        std=std,
        patch=max(side, 224),
        interpolation=interpolation,
        precision="float16",
    )
