"""MobileNet-like hosts (timm `EfficientNet`: mobilenetv2_*, efficientnet_*, semnasnet_* ...) with attention.

Our block comes through timm's `se_layer` argument, which sits on the expanded channels after the depth-wise
convolution: a gate weighs them, gate(u), as in the ELA authors' MobileNetV2 (Xu & Wan 2024, arXiv:2403.01123,
Xuwei86/ELA_Code); a mixer adds to them, u + mixer(u). Where the host has squeeze-and-excitation, ours takes
its place.

MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) has none, so it is built here with the marker in every
expanding block; all else, names and widths, is as in timm's mobilenetv2_*, whose weights load there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from timm.models.efficientnet import EfficientNet, decode_arch_def, round_channels
from torch import nn

from .channels_first import ChannelsFirst, ResidualChannelsFirst
from .choices import chosen_stages, is_mixer

__all__ = ["MOBILENETV2", "attention_layer", "build_mobilenet", "mobilenetv2_arguments"]

#: timm's name -> factor of the widths, factor of the depths, whether stem and head keep their width.
MOBILENETV2: dict[str, tuple[float, float, bool]] = {
    "mobilenetv2_035": (0.35, 1.0, False),
    "mobilenetv2_050": (0.5, 1.0, False),
    "mobilenetv2_075": (0.75, 1.0, False),
    "mobilenetv2_100": (1.0, 1.0, False),
    "mobilenetv2_110d": (1.1, 1.2, True),
    "mobilenetv2_120d": (1.2, 1.4, True),
    "mobilenetv2_140": (1.4, 1.0, False),
}

#: Table 2 of the paper in timm's notation: repeats, kernel, stride, expansion (the first has none), channels.
_STAGES = (
    "ds_r1_k3_s1_c16",
    "ir_r2_k3_s2_e6_c24",
    "ir_r3_k3_s2_e6_c32",
    "ir_r4_k3_s2_e6_c64",
    "ir_r3_k3_s1_e6_c96",
    "ir_r3_k3_s2_e6_c160",
    "ir_r1_k3_s1_e6_c320",
)


def mobilenetv2_arguments(
    width: float | int = 1.0, depth: float | int = 1.0, keep_ends: bool = False, stages: Sequence[int] | None = None
) -> dict[str, Any]:
    """What timm's `EfficientNet` needs to be a MobileNetV2 with a `se_layer`.

    Args:
        width: factor of the channels.
        depth: factor of the blocks in a stage.
        keep_ends: whether stem, head and the depths of the first and last stage stay as they are.
        stages: the 0-based stages that get the layer, of 1 to 6; without a choice, all of them.

    Raises:
        ValueError: no such stage; stage 0 has no expanded channels.

    Example:
        >>> sorted(mobilenetv2_arguments(width=0.5))
        ['act_layer', 'block_args', 'fix_stem', 'num_features', 'round_chs_fn']
    """
    chosen = chosen_stages(stages, range(1, len(_STAGES)))
    marked = [[block + "_se0.25" if stage in chosen else block] for stage, block in enumerate(_STAGES)]
    return {
        "block_args": decode_arch_def(marked, depth_multiplier=depth, fix_first_last=keep_ends),
        "num_features": 1280 if keep_ends else max(1280, round_channels(1280, width)),
        "fix_stem": keep_ends,
        "round_chs_fn": partial(round_channels, multiplier=width),
        "act_layer": nn.ReLU6,
    }


def build_mobilenet(
    entry: Callable[..., nn.Module],
    plain: EfficientNet,
    attention: str,
    options: Mapping[str, Any] | None = None,
    stages: Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a MobileNet-like net with attention on its expanded channels; arguments as for `build_vit`.

    Only a MobileNetV2 lets `stages` choose, from 1 to 6.

    Raises:
        ValueError: the host has no layer that the block can replace, or no such stage.
    """
    lent: list[nn.Linear] = []

    def layer(channels: int, **timms: Any) -> ChannelsFirst:
        made = attention_layer(channels, attention=attention, attention_options=options, **timms)
        for module in made.modules():
            if isinstance(module, nn.Linear) and module.bias is None:
                module.bias = nn.Parameter(module.weight.new_zeros(0))  # timm's initialisation asks for one
                lent.append(module)
        return made

    model = _build(entry, plain, attention, stages, kwargs, layer)
    for linear in lent:
        linear.bias = None  # type: ignore[assignment]
    return model


def _build(
    entry: Callable[..., nn.Module],
    plain: EfficientNet,
    attention: str,
    stages: Sequence[int] | None,
    kwargs: Mapping[str, Any],
    layer: Callable[..., nn.Module],
) -> nn.Module:
    """The host with `layer` in the place of squeeze-and-excitation."""
    if entry.__name__ in MOBILENETV2:
        width, depth, keep_ends = MOBILENETV2[entry.__name__]
        return EfficientNet(**(mobilenetv2_arguments(width, depth, keep_ends, stages) | dict(kwargs)), se_layer=layer)
    if stages is not None:
        raise ValueError(f"attention_stages cannot be chosen in {entry.__name__}; mobilenetv2_100 lets you")
    if all(isinstance(getattr(block, "se", None), nn.Identity | None) for block in plain.blocks.modules()):
        raise ValueError(
            f"{entry.__name__} has no squeeze-and-excitation that {attention!r} could replace; "
            "use mobilenetv2_100 or efficientnet_b0"
        )
    return entry(se_layer=layer, **kwargs)


def attention_layer(
    channels: int,
    *,
    attention: str,
    attention_options: Mapping[str, Any] | None,
    act_layer: Any,
    **where: Any,
) -> ChannelsFirst:
    """The block as timm calls it; without `rd_ratio`, so that timm's trial call builds nothing."""
    wrapper = ResidualChannelsFirst if is_mixer(attention) else ChannelsFirst
    return wrapper(channels, attention=attention, attention_options=attention_options, **where)
