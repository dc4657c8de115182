"""VAN: Visual-Attention-Network/VAN-Classification, models/van.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from case import Case
from torch import Tensor, nn

from regard.vision.attention.van import LargeKernelAttention, VanAttention
from regard.vision.backbones.van import VAN, Block, DWConv, Mlp, OverlapPatchEmbed, checkpoint_filter_fn


def filled(module: nn.Module, case: Case) -> nn.Module:
    module.load_state_dict(checkpoint_filter_fn(case.state, module))
    return module.eval()


def only_input(case: Case) -> Tensor:
    (x,) = case.inputs.values()
    return x


def channels_last(module: nn.Module, case: Case) -> dict[str, Tensor]:
    out = filled(module, case)(only_input(case).permute(0, 2, 3, 1))
    return {"y": out.permute(0, 3, 1, 2)}


def large_kernel_attention(case: Case) -> dict[str, Tensor]:
    return channels_last(LargeKernelAttention(case.config["dim"]), case)


def attention(case: Case) -> dict[str, Tensor]:
    return channels_last(VanAttention(case.config["d_model"]), case)


def block(case: Case) -> dict[str, Tensor]:
    module = Block(case.config["dim"], mlp_ratio=case.config.get("mlp_ratio", 4.0))
    return {"y": filled(module, case)(only_input(case))}


def mlp(case: Case) -> dict[str, Tensor]:
    dim = case.config["in_features"]
    module = Mlp(dim, case.config.get("hidden_features") or dim, dim_out=case.config.get("out_features"))
    return {"y": filled(module, case)(only_input(case))}


def depthwise(case: Case) -> dict[str, Tensor]:
    return {"y": filled(DWConv(case.config.get("dim", 768)), case)(only_input(case))}


def patch_embed(case: Case) -> dict[str, Tensor]:
    config = {"patch_size": 7, "stride": 4, "in_chans": 3, "embed_dim": 768} | case.config
    module = OverlapPatchEmbed(
        config["in_chans"], config["embed_dim"], patch_px=config["patch_size"], stride=config["stride"]
    )
    return {"y": filled(module, case)(only_input(case))}


def outputs_of(model: nn.Module, case: Case) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: outputs.__setitem__(name, out))
    filled(model, case)
    outputs["y"] = model(only_input(case))
    return outputs


def variant(name: str) -> Callable[[Case], dict[str, Tensor]]:
    def check(case: Case) -> dict[str, Tensor]:
        chosen = {key: case.config[key] for key in ("num_classes", "in_chans") if key in case.config}
        return outputs_of(timm.create_model(name, **chosen), case)

    return check


def network(case: Case) -> dict[str, Tensor]:
    if "model" in case.config:
        return variant(case.config["model"])(case)
    config: dict[str, Any] = {
        "embed_dims": (64, 128, 256, 512),
        "mlp_ratios": (4, 4, 4, 4),
        "depths": (3, 4, 6, 3),
    }
    config |= case.config
    model = VAN(
        num_classes=config.get("num_classes", 1000),
        in_chans=config.get("in_chans", 3),
        dims=tuple(config["embed_dims"]),
        mlp_ratios=tuple(config["mlp_ratios"]),
        depths=tuple(config["depths"]),
    )
    return outputs_of(model, case)


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "models/van.py LKA": large_kernel_attention,
    "models/van.py Attention": attention,
    "models/van.py Block": block,
    "models/van.py Mlp": mlp,
    "models/van.py DWConv": depthwise,
    "models/van.py OverlapPatchEmbed": patch_embed,
    "models/van.py VAN": network,
    **{f"models/van.py van_b{size}": variant(f"van_b{size}") for size in range(7)},
}
