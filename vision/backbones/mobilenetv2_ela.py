"""MobileNetV2 with efficient local attention after every depthwise convolution of the expanded blocks.

Source: Xu and Wan 2024, arXiv:2403.01123; Xuwei86/ELA_Code@cd4594d, MbV2/models/mbv2_ela72.py (ELA-L:
kernel 7, 8 channels in a group). The first block, which does not expand, has none. Built of timm's parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, round_channels
from torch import Tensor, nn

from ..hosts.mobilenet import attention_layer, mobilenetv2_arguments

__all__ = ["KEYS", "PAPER", "TOP1", "checkpoint_filter_fn", "convert_inverted_residual", "mobilenetv2_ela"]

PAPER = "arXiv:2403.01123"

#: Names that only files of this family have: the authors' and ours.
KEYS = (r"^features\.\d+\.conv\.6\.gn\.", r"^blocks\.\d+\.\d+\.se\.attention\.gn\.")

#: No weights are published.
TOP1: dict[str, float] = {}


#: The authors' positions inside features.{i}.conv -> timm's names, for the first block and for all others.
_FIRST = {"0": "conv_dw", "1": "bn1", "3": "conv_pw", "4": "bn2"}
_EXPANDED = {
    "0": "conv_pw",
    "1": "bn1",
    "3": "conv_dw",
    "4": "bn2",
    "6.conv": "se.attention.conv",
    "6.gn": "se.attention.gn",
    "7": "conv_pwl",
    "8": "bn3",
}


def convert_inverted_residual(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring one of the authors' inverted residuals to timm's (the first is a `DepthwiseSeparableConv`).

    Args:
        state_dict: keys `conv.{position}.*`.

    Example:
        >>> import torch
        >>> weights = {"conv.6.gn.bias": torch.zeros(8), "conv.8.bias": torch.zeros(8)}
        >>> list(convert_inverted_residual(weights))
        ['se.attention.gn.bias', 'bn3.bias']
    """
    expanded = any(name.startswith("conv.8.") for name in state_dict)
    names = _EXPANDED if expanded else _FIRST
    renamed = {}
    for name, tensor in state_dict.items():
        position, _, last = name.removeprefix("conv.").rpartition(".")
        renamed[f"{names[position]}.{last}"] = tensor
    return renamed


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: EfficientNet) -> dict[str, Tensor]:
    """Bring a file of the authors' network to timm's names; one of ours stays as it is.

    Args:
        state_dict: keys `features.{i}.conv.{j}.*`, `conv.{0,1}.*`, `classifier.1.*`, or a dict around it.
        model: the network that will load it.
    """
    while "state_dict" in state_dict:
        state_dict = state_dict["state_dict"]
    state_dict = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    if not any(name.startswith("features.") for name in state_dict):
        return dict(state_dict)
    stages = enumerate(model.blocks.children())
    names = [f"blocks.{stage}.{index}." for stage, blocks in stages for index, _ in enumerate(blocks.children())]
    renamed = {}
    blocks: dict[int, dict[str, Tensor]] = {}
    outer = {"features.0.0": "conv_stem", "features.0.1": "bn1", "conv.0": "conv_head", "conv.1": "bn2"}
    outer |= {"classifier.1": "classifier", "classifier": "classifier"}
    for name, tensor in state_dict.items():
        inner = re.match(r"features\.(\d+)\.(conv\..*)", name)
        if inner:
            blocks.setdefault(int(inner[1]), {})[inner[2]] = tensor
        else:
            position, _, last = name.rpartition(".")
            renamed[f"{outer[position]}.{last}"] = tensor
    for index, block in blocks.items():
        for name, tensor in convert_inverted_residual(block).items():
            renamed[names[index - 1] + name] = tensor
    return renamed


default_cfgs = generate_default_cfgs(
    {
        "mobilenetv2_ela.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "paper_ids": PAPER,
            "paper_name": "ELA: Efficient Local Attention for Deep Convolutional Neural Networks",
            "origin_url": "https://github.com/Xuwei86/ELA_Code",
        }
    }
)


@register_model
def mobilenetv2_ela(pretrained: bool = False, *, width_mult: float | int = 1, **kwargs: Any) -> nn.Module:
    """MobileNetV2 with ELA-L: 3.9 M parameters at width 1.

    Args:
        pretrained: no weights are published; give a `file` in `pretrained_cfg_overlay`.
        width_mult: multiplier of all channels, above 0.
        **kwargs: timm's EfficientNet arguments.
    """
    settings = mobilenetv2_arguments(width_mult)
    if width_mult == 0.1:  # the authors round the narrowest network to multiples of 4 and not of 8
        settings["round_chs_fn"] = partial(round_channels, multiplier=width_mult, divisor=4)
    settings["se_layer"] = partial(attention_layer, attention="ela", attention_options={"version": "L"})
    return build_model_with_cfg(
        EfficientNet,
        "mobilenetv2_ela",
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": kwargs.pop("out_indices", (0, 1, 2, 3, 4)), "feature_cls": "getter"},
        **(settings | kwargs),
    )
