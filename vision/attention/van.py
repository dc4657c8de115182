"""Large kernel attention (VAN): a multiplicative gate from a 23 x 23 neighbourhood.

Source: Guo et al. 2022, arXiv:2202.09741, equations 1-2; Visual-Attention-Network/VAN-Classification@e19779b
(`LKA`, `Attention`), whose parameter names are kept.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["LargeKernelAttention", "VanAttention"]

#: Values in one activation of a chunk: 2 MB of float32, so that a chain of convolutions stays in the cache.
CACHE_NUMEL = 2**19


class LargeKernelAttention(nn.Module):
    """x * conv1(conv_spatial(conv0(x))): depthwise 5 x 5, depthwise 7 x 7 with dilation 3, and 1 x 1 convolutions.

    Args:
        dim: channels, at least 1.

    Example:
        >>> LargeKernelAttention(8)(torch.rand(2, 13, 17, 8)).shape
        torch.Size([2, 13, 17, 8])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv_spatial = nn.Conv2d(dim, dim, 7, padding=9, dilation=3, groups=dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Gate the map.

        The gate has no upper bound, so in float16 the product is formed and returned in float32.
        """
        near = self.conv0(x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
        if near.device.type == "cpu" and not torch.compiler.is_exporting():
            far = _dilated_by_phase(near, self.conv_spatial)
        else:
            far = self.conv_spatial(near)
        gate = self.conv1(far).permute(0, 2, 3, 1)  # batch height width dim
        if gate.dtype == torch.float16:
            return x.float() * gate.float()
        return x * gate


class VanAttention(nn.Module):
    """The attention of VAN: proj_2(LKA(GELU(proj_1(x)))), plus x with `shortcut`.

    On a CPU without gradients the batch is computed in chunks that fit the cache, so forward hooks on the
    inner layers run once for each chunk.

    Args:
        dim: channels, at least 1.
        shortcut: whether the input is added to the output, as the authors do (not in the paper's figure).

    Example:
        >>> VanAttention(8)(torch.rand(2, 13, 17, 8)).shape
        torch.Size([2, 13, 17, 8])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "mixer"
    paper: ClassVar[str] = "arXiv:2202.09741"

    def __init__(self, dim: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.spatial_gating_unit = LargeKernelAttention(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)
        self.init_weights()

    def init_weights(self) -> None:
        """Normal weights by fan-out (outputs of a group x kernel area); biases are zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Mix every position with its neighbourhood."""
        if (
            torch.is_grad_enabled()
            or x.device.type != "cpu"
            or torch.compiler.is_compiling()
            or x.numel() <= CACHE_NUMEL
        ):
            return self._mix(x)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        images = max(1, CACHE_NUMEL // x[0].numel())
        for start in range(0, len(x), images):
            out[start : start + images] = self._mix(x[start : start + images])
        return out

    def _mix(self, x: Tensor) -> Tensor:
        planes = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        hidden = F.gelu(self.proj_1(planes)).permute(0, 2, 3, 1)  # batch height width dim
        mixed = self.spatial_gating_unit(hidden).permute(0, 3, 1, 2)  # batch dim height width
        if mixed.dtype == hidden.dtype:
            mixed = self.proj_2(mixed)
        else:  # a float16 product: only its projection is safe to round
            weight, bias = self.proj_2.parameters()
            with torch.autocast(x.device.type, enabled=False):
                mixed = F.conv2d(mixed, weight.float(), bias.float())
        mixed = mixed.permute(0, 2, 3, 1)  # batch height width dim
        if self.shortcut:
            mixed = mixed + x
        return mixed.to(x.dtype)


def _dilated_by_phase(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A dilated depthwise convolution as dense ones over the phases of the map: far faster on a CPU.

    With dilation d a position only meets positions of the same row and column modulo d: those d x d sub-maps
    go to the batch. The sums are the same.
    """
    d, kernel = conv.dilation[0], conv.kernel_size[0]
    batch, dim, height, width = x.shape
    rows, columns = -(-height // d), -(-width // d)
    phases = F.pad(x, (0, columns * d - width, 0, rows * d - height)).permute(0, 2, 3, 1)
    phases = phases.reshape(batch, rows, d, columns, d, dim).permute(0, 2, 4, 1, 3, 5)
    phases = phases.reshape(batch * d * d, rows, columns, dim).permute(0, 3, 1, 2)
    # taps beyond a sub-map only multiply zeros
    middle = kernel // 2
    up, left = min(middle, rows - 1), min(middle, columns - 1)
    weight = conv.weight[:, :, middle - up : middle + up + 1, middle - left : middle + left + 1]
    phases = F.conv2d(phases, weight, conv.bias, padding=(up, left), groups=dim)
    whole = phases.permute(0, 2, 3, 1).reshape(batch, d, d, rows, columns, dim).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(batch, rows * d, columns * d, dim)[:, :height, :width].permute(0, 3, 1, 2)
