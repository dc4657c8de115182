"""Adapters of channels-last blocks for the NCHW networks of convolutional hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import build_attention

__all__ = ["ChannelsFirst", "ResidualChannelsFirst"]


class ChannelsFirst(nn.Module):
    """An attention block for NCHW input; the permutation is a free view of `channels_last` memory.

    Args:
        dim: channels.
        attention: name of the block, as in `build_attention`.
        attention_options: keyword arguments of the block.
        device: device of the parameters.
        dtype: type of the parameters.

    Example:
        >>> ChannelsFirst(64, attention="softmax")(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    def __init__(
        self,
        dim: int,
        *,
        attention: str,
        attention_options: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.attention = build_attention(attention, dim, attention_options).to(device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend over the image."""
        return self.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualChannelsFirst(ChannelsFirst):
    """The same with a residual connection: u + block(u)."""

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Attend over the image and add."""
        return x + super().forward(x)
