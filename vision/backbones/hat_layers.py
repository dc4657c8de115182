"""The layers of HAT's restoration network, channels last.

Source: Chen et al. 2023, arXiv:2205.04437, section 3; XPixelGroup/HAT@1638a9a `HAB`, `OCAB` and `RHAG`, whose
parameter names these layers have. The authors' index tables, `relative_position_index_*`, are computed where they
are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from ..attention.hat import ChannelAttentionBlock, WindowAttention
from ..attention.hat_overlap import OverlappingCrossAttention
from ..attention.windows import may_reuse_memory

__all__ = [
    "HybridAttentionLayer",
    "OverlappingCrossAttentionLayer",
    "ResidualHybridAttentionGroup",
    "checkpoint_filter_fn",
]

#: Values of a map that an MLP processes at a time without gradients: 4 MB of float32.
CACHE_NUMEL = 2**20


class HybridAttentionLayer(nn.Module):
    """Window attention parallel to a channel attention block, then an MLP ("HAB").

    Args:
        dim: channels, a multiple of `num_heads`.
        num_heads: number of heads.
        window_size: side of a window.
        shift: rows and columns by which the windows are shifted, whatever the size of the map.
        conv_scale: weight of the channel attention block.
        compress_ratio: `dim` over the width between its convolutions.
        squeeze_factor: `dim` over the width of its gate.
        mlp_ratio: hidden width of the MLP over `dim`.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: stochastic depth rate of attention and MLP, 0-1.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> import torch
        >>> HybridAttentionLayer(36, num_heads=3, window_size=8, shift=4)(torch.rand(2, 16, 24, 36)).shape
        torch.Size([2, 16, 24, 36])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 6,
        window_size: int = 16,
        shift: int = 0,
        conv_scale: float | int = 0.01,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        mlp_ratio: float | int = 2,
        qkv_bias: bool = True,
        drop_path_rate: float | int = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= shift < window_size:
            raise ValueError(f"shift {shift} is not from 0 to window_size - 1 = {window_size - 1}")
        self.shift = shift
        self.conv_scale = conv_scale
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads=num_heads, window_size=window_size, qkv_bias=qkv_bias)
        self.conv_block = ChannelAttentionBlock(dim, compress_ratio=compress_ratio, squeeze_factor=squeeze_factor)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Mix positions and channels."""
        normed = self.norm1(x)
        if may_reuse_memory() and not self.training:
            mixed = self.attn(normed, shift=self.shift)
            mixed.add_(self.conv_block(normed), alpha=self.conv_scale).add_(x)
            return _add_in_chunks(mixed, self.norm2, self.mlp)
        x = x + self.drop_path(self.attn(normed, shift=self.shift)) + self.conv_scale * self.conv_block(normed)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class OverlappingCrossAttentionLayer(OverlappingCrossAttention):
    """Overlapping cross attention, then an MLP ("OCAB"); the authors hold the attention's parameters in the layer.

    Args:
        dim: channels, a multiple of `num_heads`.
        mlp_ratio: hidden width of the MLP over `dim`.
        attention: other arguments of `OverlappingCrossAttention`.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> import torch
        >>> OverlappingCrossAttentionLayer(36, num_heads=3, window_size=8)(torch.rand(2, 16, 24, 36)).shape
        torch.Size([2, 16, 24, 36])
    """

    def __init__(self, dim: int, *, mlp_ratio: float | int = 2, **attention: Any) -> None:
        super().__init__(dim, **attention)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: Float[Tensor, "batch height width dim"],
        context: Float[Tensor, "batch context dim"] | None = None,
    ) -> Float[Tensor, "batch height width dim"]:
        """Attend to the larger windows, then transform every position."""
        if may_reuse_memory():
            return _add_in_chunks(super().forward(self.norm1(x), context).add_(x), self.norm2, self.mlp)
        x = x + super().forward(self.norm1(x), context)
        return x + self.mlp(self.norm2(x))


class ResidualHybridAttentionGroup(nn.Module):
    """Hybrid attention layers, one of overlapping cross attention, a convolution, and a shortcut around all ("RHAG").

    Args:
        dim: channels, a multiple of `num_heads`.
        depth: hybrid attention layers; the windows of every second one are shifted by half a window.
        num_heads: number of heads.
        window_size: side of a window.
        shift: shift of every second layer; half a window without it.
        overlap_ratio: how much longer the side of an overlapping window is.
        mlp_ratio: hidden width of the MLPs over `dim`.
        qkv_bias: whether queries, keys and values have a bias.
        conv: whether there is a 3x3 convolution before the shortcut (the authors' `resi_connection="1conv"`).
        drop_path_rates: one for every layer; all 0 without them.
        hybrid: other arguments of `HybridAttentionLayer`.

    Raises:
        ValueError: numbers that do not fit each other, or out of range.

    Example:
        >>> import torch
        >>> ResidualHybridAttentionGroup(36, depth=2, num_heads=3, window_size=8)(torch.rand(2, 16, 24, 36)).shape
        torch.Size([2, 16, 24, 36])
    """

    def __init__(
        self,
        dim: int,
        *,
        depth: int = 6,
        num_heads: int = 6,
        window_size: int = 16,
        shift: int | None = None,
        overlap_ratio: float | int = 0.5,
        mlp_ratio: float | int = 2,
        qkv_bias: bool = True,
        conv: bool = True,
        drop_path_rates: Sequence[float | int] | None = None,
        **hybrid: Any,
    ) -> None:
        super().__init__()
        rates = [0.0] * depth if drop_path_rates is None else drop_path_rates
        if len(rates) != depth:
            raise ValueError(f"{len(rates)} drop_path_rates are given for {depth} layers")
        shift = window_size // 2 if shift is None else shift
        both: dict[str, Any] = {"num_heads": num_heads, "window_size": window_size, "mlp_ratio": mlp_ratio}
        both["qkv_bias"] = qkv_bias
        layers = [
            HybridAttentionLayer(dim, shift=shift if index % 2 else 0, drop_path_rate=rate, **both, **hybrid)
            for index, rate in enumerate(rates)
        ]
        overlapping = OverlappingCrossAttentionLayer(dim, overlap_ratio=overlap_ratio, **both)
        self.residual_group = nn.ModuleDict({"blocks": nn.Sequential(*layers), "overlap_attn": overlapping})
        self.conv = nn.Conv2d(dim, dim, 3, padding=1) if conv else nn.Identity()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Mix positions and channels."""
        mixed = self.residual_group["overlap_attn"](self.residual_group["blocks"](x))
        mixed = self.conv(mixed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return mixed.add_(x) if may_reuse_memory() and not isinstance(self.conv, nn.Identity) else x + mixed


def _add_in_chunks(x: Tensor, norm: nn.Module, mlp: nn.Module) -> Tensor:
    """`x + mlp(norm(x))` in place, some tokens at a time: the hidden layer of an MLP is wider than the map."""
    tokens = x.flatten(0, 2)
    for chunk in tokens.split(max(1, CACHE_NUMEL // x.shape[3])):
        chunk.add_(mlp(norm(chunk)))
    return tokens.view(x.shape)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The authors' weights by our names: theirs, without the index tables.

    Args:
        state_dict: what one of their files holds, where the weights are under `params_ema` or `params`, or weights.
        model: what they are for.

    Example:
        >>> layer = HybridAttentionLayer(8, num_heads=1, window_size=2)
        >>> sorted(checkpoint_filter_fn({"params_ema": layer.state_dict()}, layer)) == sorted(layer.state_dict())
        True
    """
    weights = state_dict.get("params_ema", state_dict.get("params", state_dict))
    return {name: tensor for name, tensor in weights.items() if "relative_position_index" not in name}
