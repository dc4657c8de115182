"""VAN's attention and block written out in NCHW.

Source: Guo et al. 2022, arXiv:2202.09741, equations 1-2 and figure 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PlainLargeKernelAttention", "PlainVanAttention", "PlainVanBlock", "PlainVanMlp"]


class PlainLargeKernelAttention(nn.Module):
    """Depthwise 5 x 5, depthwise 7 x 7 with dilation 3, 1 x 1: the product of that with the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv_spatial = nn.Conv2d(dim, dim, 7, padding=9, dilation=3, groups=dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Gate the map."""
        return x * self.conv1(self.conv_spatial(self.conv0(x)))


class PlainVanAttention(nn.Module):
    """Projection, GELU, large kernel attention, projection, and the shortcut."""

    def __init__(self, dim: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = PlainLargeKernelAttention(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix every position with its neighbourhood."""
        mixed = self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))
        return mixed + x if self.shortcut else mixed


class _Depthwise(nn.Module):
    """The one convolution that the authors keep in a separate module."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)


class PlainVanMlp(nn.Module):
    """1 x 1, depthwise 3 x 3, GELU, 1 x 1."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = _Depthwise(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Transform every position."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class PlainVanBlock(nn.Module):
    """A block of the VAN backbone: attention and MLP, each after a BatchNorm, scaled and added.

    Args:
        dim: channels.
        mlp_ratio: hidden width of the MLP over `dim`.
    """

    def __init__(self, dim: int, *, mlp_ratio: float | int = 4) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = PlainVanAttention(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = PlainVanMlp(dim, int(dim * mlp_ratio))
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-2))

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix positions, then channels."""
        x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))
