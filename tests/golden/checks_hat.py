"""HAT: XPixelGroup/HAT, hat/archs/hat_arch.py; its attentions, layers, tables and whole networks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from case import Case
from torch import Tensor, nn

from regard.vision.attention.hat import ChannelAttention, ChannelAttentionBlock, HybridAttention, WindowAttention, cut
from regard.vision.attention.hat_overlap import OverlappingCrossAttention, whole
from regard.vision.attention.plain.hat import PlainWindowAttention
from regard.vision.attention.plain.hat_overlap import PlainOverlappingCrossAttention
from regard.vision.attention.windows import bias_by_offset
from regard.vision.backbones.hat import HAT, deduce
from regard.vision.backbones.hat_layers import (
    HybridAttentionLayer,
    OverlappingCrossAttentionLayer,
    ResidualHybridAttentionGroup,
    checkpoint_filter_fn,
)

#: Arguments of the authors' that ours have under the same name.
SAME = ("num_heads", "qkv_bias", "conv_scale", "compress_ratio", "squeeze_factor", "mlp_ratio", "overlap_ratio")
DEFAULTS = {"compress_ratio": 3, "squeeze_factor": 30, "conv_scale": 0.01, "mlp_ratio": 4.0, "overlap_ratio": 0.5}


def filled(module: nn.Module, case: Case) -> nn.Module:
    module.load_state_dict(checkpoint_filter_fn(case.state, module))
    return module.eval()


def part(module: nn.Module, like: nn.Module) -> nn.Module:
    """A module with the tensors of the same names of another."""
    state = like.state_dict()
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    return module.eval()


def only_input(case: Case) -> Tensor:
    (x,) = case.inputs.values()
    return x


def options(config: Mapping[str, Any], *without: str) -> dict[str, Any]:
    config = DEFAULTS | dict(config)
    side = config.get("window_size", 7)
    chosen = {name: config[name] for name in SAME if name in config and name not in without}
    return chosen | {"window_size": side if isinstance(side, int) else side[0]}


def clamped(case: Case, chosen: dict[str, Any]) -> bool:
    """Whether the reference does not shift; where the map is less than a window, its window is the map."""
    side = min(case.config.get("input_resolution") or case.config["grid"])
    if side > chosen["window_size"]:
        return False
    chosen["window_size"] = side
    return True


def on_grid(module: nn.Module, case: Case) -> dict[str, Tensor]:
    """A layer of (batch, height, width, dim) for tokens in a row."""
    height, width = case.config["grid"]
    return {"y": filled(module, case)(only_input(case).unflatten(1, (height, width))).flatten(1, 2)}


def planes(module: nn.Module, case: Case) -> dict[str, Tensor]:
    return {"y": filled(module, case)(only_input(case))}


def channel_attention(case: Case) -> dict[str, Tensor]:
    return planes(ChannelAttention(case.config["num_feat"], squeeze_factor=case.config.get("squeeze_factor", 16)), case)


def channel_attention_block(case: Case) -> dict[str, Tensor]:
    chosen = options(case.config, "num_heads")
    ours = ChannelAttentionBlock(case.config["num_feat"], **{key: chosen[key] for key in SAME[3:5]})
    return {"y": filled(ours, case)(only_input(case).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)}


def window_attention(case: Case) -> dict[str, Tensor]:
    """The reference is given windows, and what they are part of in words."""
    config, x = case.config, only_input(case)
    chosen = options(config, *SAME[2:])
    side = chosen["window_size"]
    grid, shift = (side, side), 0
    if config.get("mask"):
        found = re.search(r"(\d+)x(\d+) grid.*shift (\d+)", config["mask"])
        assert found, config["mask"]
        grid, shift = (int(found[1]), int(found[2])), int(found[3])
    module = filled(WindowAttention(config["dim"], **chosen), case)
    rolled = x.reshape(-1, grid[0] // side, grid[1] // side, side, side, x.shape[2]).transpose(2, 3)
    maps = rolled.flatten(3, 4).flatten(1, 2).roll((shift, shift), dims=(1, 2))
    ours = module(maps, shift=shift)
    plain = PlainWindowAttention(config["dim"], **({"qkv_bias": True} | chosen))
    plain = part(plain, module)(maps.permute(0, 3, 1, 2), shift).permute(0, 2, 3, 1)
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-5)
    return {"y": maps_to_windows(ours.roll((-shift, -shift), dims=(1, 2)), side)}


def maps_to_windows(maps: Tensor, side: int) -> Tensor:
    parts = maps.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
    return parts.flatten(3, 4).flatten(0, 2)


def hybrid_layer(case: Case) -> dict[str, Tensor]:
    config, chosen = case.config, options(case.config, "overlap_ratio")
    shift = 0 if clamped(case, chosen) else config.get("shift_size", 0)
    module = HybridAttentionLayer(config["dim"], shift=shift, **chosen)
    outputs = on_grid(module, case)
    chosen.pop("mlp_ratio")
    block = part(HybridAttention(config["dim"], shift=shift, **chosen), module)
    x = only_input(case).unflatten(1, config["grid"])
    x = x + block(module.norm1(x))
    x = x + module.mlp(module.norm2(x))
    torch.testing.assert_close(x.flatten(1, 2), outputs["y"], rtol=1e-4, atol=1e-5)
    return outputs


def overlapping_layer(case: Case) -> dict[str, Tensor]:
    config, chosen = case.config, options(case.config, *SAME[2:5])
    chosen["mlp_ratio"] = config.get("mlp_ratio", 2)
    module = OverlappingCrossAttentionLayer(config["dim"], **chosen)
    outputs = on_grid(module, case)
    chosen.pop("mlp_ratio")
    x = only_input(case).unflatten(1, config["grid"])
    normed = module.norm1(x)
    block = part(OverlappingCrossAttention(config["dim"], **chosen), module)(normed)
    plain = part(PlainOverlappingCrossAttention(config["dim"], **chosen), module)(normed.permute(0, 3, 1, 2))
    torch.testing.assert_close(plain.permute(0, 2, 3, 1), block, rtol=1e-4, atol=1e-5)
    x = x + block
    x = x + module.mlp(module.norm2(x))
    torch.testing.assert_close(x.flatten(1, 2), outputs["y"], rtol=1e-4, atol=1e-5)
    return outputs


def group(case: Case, inner: bool = False) -> dict[str, Tensor]:
    config, chosen = case.config, options(case.config)
    shift = {"shift": 0} if clamped(case, chosen) else {}
    conv = not inner and config.get("resi_connection", "1conv") == "1conv"
    module = ResidualHybridAttentionGroup(config["dim"], depth=config["depth"], conv=conv, **shift, **chosen)
    if not inner:
        return on_grid(module, case)
    module.residual_group.load_state_dict(checkpoint_filter_fn(case.state, module))
    x = only_input(case).unflatten(1, config["grid"])
    return {"y": (module.eval()(x) - x).flatten(1, 2)}


def network(case: Case) -> dict[str, Tensor]:
    """Built of the shapes alone, but for what does not show in them; images are 0.25 n + 0.5 as the files say."""
    config = case.config
    built = HAT(**deduce(case.state), img_range=config["img_range"], conv_scale=config["conv_scale"])
    assert built.scale == config["upscale"]
    return {"y": filled(built, case)(0.25 * only_input(case) + 0.5)}


def tables(case: Case) -> dict[str, Tensor]:
    """Tables that say where in itself each number is show the index of every pair."""
    outputs = {}
    for name, expected in case.expected.items():
        side = int(re.search(r"_w(\d+)", name)[1])
        if "index" in name and "SA" in name:
            module: Any = WindowAttention(1, num_heads=1, window_size=side)
            axis = cut(side, side, 0)[0]
        elif "index" in name:
            ratio = (math.isqrt(expected.shape[1]) - side) / side
            module = OverlappingCrossAttention(1, num_heads=1, window_size=side, overlap_ratio=ratio)
            axis = whole(side, side, module.rim)
        else:
            outputs[name] = shift_mask(name, side, re.search(r"shift (\d+)", case.notes))
            continue
        table = module.relative_position_bias_table
        rows = len(table)
        with torch.no_grad():
            table.copy_(torch.arange(rows).unsqueeze(1))
            index = bias_by_offset(module.offsets, axis, axis)[0].to(expected.dtype)
        assert index.unique().numel() == rows
        outputs[name] = torch.where(expected < 0, index - rows, index)  # -1 is the last of a table
    return outputs


def shift_mask(name: str, side: int, stated: re.Match[str] | None) -> Tensor:
    """What the mask separates lies in different rectangles of ours."""
    shift = int(stated[1]) if stated else side // 2
    height, width = (int(number) for number in re.search(r"(\d+)x(\d+)", name).groups())
    lines = []
    for length in (height, width):
        runs = [axis.query for axis in cut(length, side, shift)]
        lengths = [run.side for run in runs for _ in range(run.number)]
        lines.append(torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)))
    labels = (lines[0].unsqueeze(1) * width + lines[1]).roll((-shift, -shift), dims=(0, 1))
    tokens = maps_to_windows(labels[None, :, :, None], side).squeeze(-1)
    return torch.where(tokens.unsqueeze(1) == tokens.unsqueeze(2), 0.0, -100.0)


FILE = "hat/archs/hat_arch.py"
CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    f"{FILE} ChannelAttention": channel_attention,
    f"{FILE} CAB": channel_attention_block,
    f"{FILE} WindowAttention": window_attention,
    f"{FILE} HAB": hybrid_layer,
    f"{FILE} OCAB": overlapping_layer,
    f"{FILE} AttenBlocks": lambda case: group(case, inner=True),
    f"{FILE} RHAG": group,
    f"{FILE} HAT": network,
    f"{FILE} HAT.calculate_rpi_sa/calculate_rpi_oca/calculate_mask": tables,
}
