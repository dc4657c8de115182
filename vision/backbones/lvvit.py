"""The stem of LV-ViT, the only part that timm's vision transformer lacks.

Source: Jiang et al. 2021, arXiv:2104.10858; zihangJiang/TokenLabeling, whose parameter names are kept.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import PatchEmbed
from torch import Tensor, nn

__all__ = ["ConvPatchEmbed"]


class ConvPatchEmbed(PatchEmbed):
    """LV-ViT's stem: three convolutions at half size, and patches of 8 x 8 from what they give.

    Args:
        img_size: height and width of the images.
        patch_size: only 16.
        in_chans: channels of the images.
        embed_dim: width of a token.
        width: channels of the convolutions.
        timm: the other arguments of timm's `PatchEmbed`.

    Raises:
        ValueError: another patch size.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        *,
        width: int = 64,
        **timm: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **timm)
        if tuple(self.patch_size) != (16, 16):
            raise ValueError(f"patch_size is {patch_size}; LV-ViT's stem makes patches of 16")
        like: dict[str, Any] = {"device": self.proj.weight.device, "dtype": self.proj.weight.dtype}
        self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False, **like)
        self.bn1 = nn.BatchNorm2d(width, **like)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False, **like)
        self.bn2 = nn.BatchNorm2d(width, **like)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False, **like)
        self.bn3 = nn.BatchNorm2d(width, **like)
        self.proj = nn.Conv2d(width, embed_dim, 8, stride=8, **like)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the image size.

        Raises:
            ValueError: another patch size.
        """
        if patch_size is not None and tuple(patch_size) != (16, 16):
            raise ValueError(f"patch_size is {patch_size}; LV-ViT's stem makes patches of 16")
        super().set_input_size(img_size)

    def forward(self, x: Float[Tensor, "batch channels height_px width_px"]) -> Float[Tensor, "batch patches dim"]:
        """Embed the patches.

        Raises:
            ValueError: the image is of another size.
        """
        if tuple(x.shape[-2:]) != tuple(self.img_size):
            raise ValueError(f"images of {tuple(x.shape[-2:])} px; this model needs {self.img_size}: set_input_size")
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.norm(self.proj(x).flatten(2).mT)
