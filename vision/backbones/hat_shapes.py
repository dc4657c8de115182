"""Infer the arguments of a HAT from the shapes of its weights.

Source: XPixelGroup/HAT@1638a9a, hat/archs/hat_arch.py, whose parameter names these are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["deduce"]


def deduce(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of the `HAT` of these weights, except `conv_scale` and `img_range`, which weights do not show.

    Args:
        weights: a state dict by the authors' names.

    Raises:
        LookupError: they are not of such a network.

    Example:
        >>> from regard.vision.backbones.hat import HAT
        >>> model = HAT(scale=2, dim=12, depths=(1, 2), num_heads=2, window_size=4, squeeze_factor=6)
        >>> found = deduce(model.state_dict())
        >>> found["scale"], found["depths"], found["window_size"], found["squeeze_factor"]
        (2, (1, 2), 4, 6)
    """
    dim, in_chans = weights["conv_first.weight"].shape[:2]
    found = [re.match(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.norm1\.weight$", name) for name in weights]
    indices = {(int(one[1]), int(one[2])) for one in found if one}
    depths = tuple(
        sum(group == index for index, _ in indices) for group in range(1 + max(index for index, _ in indices))
    )
    first, last = "layers.0.residual_group.blocks.0", "layers.0.residual_group.overlap_attn"
    window = (math.isqrt(len(weights[f"{first}.attn.relative_position_bias_table"])) + 1) // 2
    more = math.isqrt(len(weights[f"{last}.relative_position_bias_table"])) + 1 - 2 * window
    ratio = more / window
    shuffled = [tensor for name, tensor in weights.items() if re.match(r"upsample\.\d+\.weight$", name)]
    nine = any(len(tensor) == 9 * tensor.shape[1] for tensor in shuffled)
    table = "residual_group.overlap_attn.relative_position_bias_table"
    heads = [weights[f"layers.{group}.{table}"].shape[1] for group in range(len(depths))]
    return {
        "scale": 3 if nine else 2 ** len(shuffled),
        "in_chans": in_chans,
        "dim": dim,
        "depths": depths,
        "num_heads": heads[0] if len(set(heads)) == 1 else heads,
        "window_size": window,
        "overlap_ratio": ratio if int(window * ratio) == more else math.nextafter(ratio, math.inf),
        "compress_ratio": dim // len(weights[f"{first}.conv_block.cab.0.weight"]),
        "squeeze_factor": dim // len(weights[f"{first}.conv_block.cab.3.attention.1.weight"]),
        "mlp_ratio": len(weights[f"{first}.mlp.fc1.weight"]) / dim,
        "qkv_bias": f"{first}.attn.qkv.bias" in weights,
        "conv": "conv_after_body.weight" in weights,
    }
