"""KEEP's image tower: UNI's ViT-L/16 and two linear layers into the space that it shares with words.

Source: Zhou et al. 2024, arXiv:2412.13126, and the model card of Astaxanthin/KEEP, whose parameter names these are. The
features are divided by their length, as its `encode_image` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Keep", "keep_weights"]


class Keep(nn.Module):
    """The image tower.

    Args:
        dim: width of the features.
        trunk: keyword arguments of timm's VisionTransformer that differ from ViT-L/16's.
    """

    def __init__(self, dim: int = 768, trunk: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        own: dict[str, Any] = {"init_values": 1e-5, "num_classes": 0, "dynamic_img_size": True}
        vit: Any = timm.create_model("vit_large_patch16_224", **{**own, **(trunk or {})})
        self.visual = vit
        self.visual_head = nn.Sequential(nn.Linear(vit.num_features, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One vector an image."""
        return self.visual_head(self.visual(images))


def keep_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower in the authors' file; what transformers called `weight` of a layer's scale is `gamma` again."""
    inside = {name: value for name, value in weights.items() if name.startswith(("visual.", "visual_head."))}
    return {re.sub(r"\.(ls[12])\.weight$", r".\1.gamma", name): value for name, value in inside.items()}
