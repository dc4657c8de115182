"""CTransPath: a Swin-T with a stem of three convolutions, passed to timm as its patch embedding.

Source: Wang et al. 2022, doi:10.1016/j.media.2022.102559, and Xiyue-Wang/TransPath, whose parameter names these are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ConvStem", "ctranspath"]


class ConvStem(nn.Module):
    """Two 3 x 3 convolutions of stride 2 and one of 1 x 1 instead of a Swin's patch embedding.

    Args:
        img_size: side of the images in pixels, or height and width.
        patch_size: 4.
        in_chans: channels of an image.
        embed_dim: width, a multiple of 8.
        norm_layer: of the tokens.
        unused: what else timm gives to a patch embedding.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        assert patch_size == 4
        side = img_size if isinstance(img_size, int) else img_size[0]
        self.grid_size = (side // 4, side // 4)
        widths = (in_chans, embed_dim // 8, embed_dim // 4)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """Tokens, channels last."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


def ctranspath(**options: Any) -> nn.Module:
    """The Swin-T with that stem, without a classifier; options are timm's.

    Example:
        >>> import torch
        >>> ctranspath(embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 6))(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 192])
    """
    return timm.create_model("swin_tiny_patch4_window7_224", embed_layer=ConvStem, num_classes=0, **options)
