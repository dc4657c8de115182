"""HAT as a whole, written out in NCHW: every window, mask and weight of attention at once.

Source: Chen et al. 2023, arXiv:2205.04437, section 3.
"""

from __future__ import annotations

import copy
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ...backbones.hat import HAT, reflect
from ...backbones.hat_layers import HybridAttentionLayer, OverlappingCrossAttentionLayer
from .hat import PlainHybridAttention
from .hat_overlap import PlainOverlappingCrossAttention

__all__ = ["PlainHAT"]


class PlainHAT(nn.Module):
    """The network of a `regard.vision.backbones.hat.HAT` with its weights, in evaluation mode."""

    def __init__(self, model: HAT) -> None:
        super().__init__()
        self.whole = copy.deepcopy(model).eval()
        self.attention = nn.ModuleDict()  # layers by their names
        for name, layer in model.named_modules():
            if isinstance(layer, HybridAttentionLayer | OverlappingCrossAttentionLayer):
                self.attention[name.replace(".", "/")] = _plain(layer)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels scaled_height scaled_width"]:
        """Restore images in 0-1."""
        whole: Any = self.whole
        side, (height, width) = whole.window_size, x.shape[2:]
        padded = reflect(x, -height % side, -width % side)
        shallow = whole.conv_first((padded - whole.mean) * whole.img_range)
        maps = _normed(whole.patch_embed["norm"], shallow)
        for index, group in enumerate(whole.layers):
            mixed, parts = maps, group.residual_group
            for number, layer in enumerate(parts["blocks"]):
                attention = self.attention[f"layers/{index}/residual_group/blocks/{number}"]
                mixed = mixed + attention(_normed(layer.norm1, mixed))
                mixed = mixed + _by_tokens(layer.mlp, _normed(layer.norm2, mixed))
            layer = parts["overlap_attn"]
            mixed = mixed + self.attention[f"layers/{index}/residual_group/overlap_attn"](_normed(layer.norm1, mixed))
            mixed = mixed + _by_tokens(layer.mlp, _normed(layer.norm2, mixed))
            maps = maps + group.conv(mixed)
        features = whole.conv_after_body(_normed(whole.norm, maps)) + shallow
        if whole.scale == 1:
            return (padded + whole.conv_last(features) / whole.img_range)[:, :, :height, :width]
        image = whole.conv_last(whole.upsample(whole.conv_before_upsample(features)))
        return (image / whole.img_range + whole.mean)[:, :, : height * whole.scale, : width * whole.scale]


def _plain(layer: Any) -> nn.Module:
    """The attention of a layer, written out, with its weights."""
    plain: nn.Module
    if isinstance(layer, OverlappingCrossAttentionLayer):
        dim, side = layer.proj.in_features, layer.window_size
        ratio = (2 * layer.rim + 0.5) / side
        plain = PlainOverlappingCrossAttention(
            dim, num_heads=layer.num_heads, window_size=side, overlap_ratio=ratio, qkv_bias=layer.qkv.bias is not None
        )
    else:
        attention, dim = layer.attn, layer.attn.proj.in_features
        plain = PlainHybridAttention(
            dim,
            num_heads=attention.num_heads,
            window_size=attention.window_size,
            shift=layer.shift,
            conv_scale=layer.conv_scale,
            compress_ratio=dim // layer.conv_block.cab[0].out_channels,
            squeeze_factor=dim // layer.conv_block.cab[3].attention[1].out_channels,
            qkv_bias=attention.qkv.bias is not None,
        )
    weights = layer.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    return plain


def _normed(norm: nn.Module, maps: Tensor) -> Tensor:
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _by_tokens(mlp: nn.Module, maps: Tensor) -> Tensor:
    return mlp(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
