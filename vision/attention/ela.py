"""Efficient local attention (ELA): sigmoid gates for the rows and columns of a map.

Source: Xu and Wan 2024, arXiv:2403.01123, equations 4-8; Xuwei86/ELA_Code@cd4594d, whose parameter names are
kept. timm's `EfficientLocalAttn` is another function (own weights for each axis, SiLU before the sigmoid).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["EfficientLocalAttention"]

#: Version -> kernel size, channels in a group of the convolution, groups of the norm. T is not in the code.
VERSIONS: dict[str, tuple[int, int, int]] = {
    "T": (5, 1, 32),
    "S": (5, 8, 16),
    "B": (7, 1, 16),
    "L": (7, 8, 16),
}


class EfficientLocalAttention(nn.Module):
    """Gate a map by its row means and by its column means.

        out_ijc = x_ijc * sigmoid(gn(conv(mean over j of x)))_ic * sigmoid(gn(conv(mean over i of x)))_jc

    Both axes share the convolution and the norm, which are computed in float32. The authors' code raises an error if
    `dim` is not a multiple of 16 (T: 32) or 8; here the largest divisor up to the published number is used.

    Args:
        dim: channels, at least 1.
        version: the paper's T, S, B or L, which sets the defaults of the next three.
        kernel_size: length of the convolution, odd.
        conv_groups: groups of the convolution, a divisor of `dim`.
        norm_groups: groups of the norm, a divisor of `dim`.

    Raises:
        ValueError: an unknown version, an even kernel, or groups that do not divide `dim`.

    Example:
        >>> EfficientLocalAttention(32, version="L")(torch.rand(2, 13, 17, 32)).shape
        torch.Size([2, 13, 17, 32])
    """

    kind: ClassVar[Literal["mixer", "gate"]] = "gate"
    paper: ClassVar[str] = "arXiv:2403.01123"

    def __init__(
        self,
        dim: int,
        *,
        version: Literal["T", "S", "B", "L"] = "B",
        kernel_size: int | None = None,
        conv_groups: int | None = None,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        if version not in VERSIONS:
            raise ValueError(f"ELA has no version {version!r}; known: {', '.join(VERSIONS)}")
        kernel, group_channels, max_norm_groups = VERSIONS[version]
        kernel = kernel_size or kernel
        conv_groups = conv_groups or dim // _divisor(dim, group_channels)
        norm_groups = norm_groups or _divisor(dim, max_norm_groups)
        if kernel % 2 == 0:
            raise ValueError(f"kernel_size {kernel} is even; ELA needs an odd one to keep the length")
        for name, groups in (("conv_groups", conv_groups), ("norm_groups", norm_groups)):
            if dim % groups:
                raise ValueError(f"dim {dim} does not divide by {name} {groups}; leave it out to have one chosen")
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=conv_groups, bias=False)
        self.gn = nn.GroupNorm(norm_groups, dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Set PyTorch's default initialisation, as the authors do."""
        self.conv.reset_parameters()
        self.gn.reset_parameters()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Gate every position by its row and its column; the memory format of the input is kept."""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._weigh(x)
        return self._weigh(x)

    def _weigh(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        if torch.compiler.is_compiling() or x.is_contiguous():
            gates = self._gates(x.mean(dim=2, dtype=exact).mT, x.mean(dim=1, dtype=exact).mT)
            # Gates in NCHW order would make the products stride through memory, which takes three times as long.
            row_gate, column_gate = (gate.mT.contiguous() for gate in gates)
            del gates
            return _product(x, row_gate.unsqueeze(2), column_gate.unsqueeze(1))
        planes = x.permute(0, 3, 1, 2)
        row_gate, column_gate = self._gates(planes.mean(dim=3, dtype=exact), planes.mean(dim=2, dtype=exact))
        return _product(planes, row_gate.unsqueeze(3), column_gate.unsqueeze(2)).permute(0, 2, 3, 1)

    def _gates(
        self, rows: Float[Tensor, "batch dim height"], columns: Float[Tensor, "batch dim width"]
    ) -> tuple[Float[Tensor, "batch dim height"], Float[Tensor, "batch dim width"]]:
        """Both gates from one convolution over the concatenated means, separated by zeros as for padding."""
        height, gap = rows.shape[2], self.conv.kernel_size[0] // 2
        weight, scale, shift = (p.to(rows.dtype) for p in (self.conv.weight, self.gn.weight, self.gn.bias))
        line = torch.cat([rows, rows.new_zeros(*rows.shape[:2], gap), columns], dim=2)
        mixed = F.conv1d(line, weight, padding=gap, groups=self.conv.groups)
        parts = mixed[:, :, :height], mixed[:, :, height + gap :]
        row_gate, column_gate = (F.group_norm(part, self.gn.num_groups, scale, shift, self.gn.eps) for part in parts)
        return row_gate.sigmoid(), column_gate.sigmoid()


def _divisor(dim: int, most: int) -> int:
    """The largest divisor of `dim` up to `most`."""
    return max(n for n in range(1, most + 1) if dim % n == 0)


def _product(x: Tensor, row_gate: Tensor, column_gate: Tensor) -> Tensor:
    gated = x * row_gate.to(x.dtype)
    if gated.requires_grad:
        return gated * column_gate.to(x.dtype)
    return gated.mul_(column_gate.to(x.dtype))
