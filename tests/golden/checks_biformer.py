"""BiFormer: rayleizhu/BiFormer, ops/bra_legacy.py, ops/bra_nchw.py, models/_common.py and the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from case import Case
from torch import Tensor, nn

from regard.vision.attention.biformer import BiLevelRoutingAttention
from regard.vision.attention.lepe import LePEAttention
from regard.vision.backbones.biformer import BiFormer, Block, checkpoint_filter_fn

#: Arguments of the authors' attention that ours has under the same name.
SAME = (
    *("num_heads", "n_win", "topk", "qk_dim", "qk_scale", "side_dwconv"),
    *("kv_downsample_mode", "kv_per_win", "kv_downsample_ratio"),
    *("soft_routing", "diff_routing", "param_routing", "param_attention"),
)


def filled(module: nn.Module, case: Case) -> nn.Module:
    module.load_state_dict(checkpoint_filter_fn(case.state, module))
    return module.eval()


def only_input(case: Case) -> Tensor:
    (x,) = case.inputs.values()
    return x


def routing_options(config: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: config[key] for key in SAME if key in config}
    if options.get("kv_downsample_mode") == "identity":
        options.pop("kv_per_win", None)  # -1 in the authors' settings
    return options


def legacy(case: Case) -> BiLevelRoutingAttention:
    # the authors refuse ragged sizes without auto_pad; where they do not, all paddings agree
    return filled(BiLevelRoutingAttention(case.config["dim"], padding="input", **routing_options(case.config)), case)


def legacy_attention(case: Case) -> dict[str, Tensor]:
    return {"y": legacy(case)(only_input(case))}


def legacy_internals(case: Case) -> dict[str, Tensor]:
    module, x = legacy(case), only_input(case)
    found = module.attention_weights(x)
    return {
        "y": module(x),
        "r_idx_sorted": found.regions.sort(dim=-1).values.float(),
        "r_weight": found.region_weights,
        # the authors fold batch and regions
        "attn": found.weights.transpose(1, 2).flatten(0, 1),
    }


def nchw_attention(case: Case) -> dict[str, Tensor]:
    module = BiLevelRoutingAttention(case.config["dim"], padding="projected", **routing_options(case.config))
    x = only_input(case)
    out = filled(module, case)(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(module(x.permute(0, 2, 3, 1).contiguous()), out, rtol=1e-4, atol=1e-5)
    return {"y": out.permute(0, 3, 1, 2)}


def full_attention(case: Case, lepe_of: str, planar: bool) -> dict[str, Tensor]:
    config = case.config
    module = LePEAttention(
        config["dim"],
        num_heads=config.get("num_heads", 8),
        qkv_bias=config.get("qkv_bias", False),
        side_dwconv=config.get("side_dwconv", 5),
        lepe_of=lepe_of,
    )
    x = only_input(case)
    out = filled(module, case)(x.permute(0, 2, 3, 1) if planar else x)
    return {"y": out.permute(0, 3, 1, 2) if planar else out}


def block(case: Case) -> dict[str, Tensor]:
    config = case.config
    routing = routing_options(config)
    topk = routing.pop("topk", 4)
    module = Block(
        config["dim"],
        num_heads=routing.pop("num_heads", 8),
        topk=topk if topk > 0 else None,
        mlp_ratio=config.get("mlp_ratio", 4),
        pos_dwconv=config.get("before_attn_dwconv", 3),
        layer_scale=config.get("layer_scale_init_value", -1),
        pre_norm=config.get("pre_norm", True),
        attention_options=routing | {"padding": "input"},
    )
    return {"y": filled(module, case)(only_input(case))}


def outputs_of(model: nn.Module, case: Case) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    for index, stage in enumerate(model.stages):
        stage.register_forward_hook(lambda _, __, out, name=f"stage{index}": outputs.__setitem__(name, out))
    filled(model, case)
    outputs["y"] = model(only_input(case))
    return outputs


def network(case: Case) -> dict[str, Tensor]:
    config = dict(case.config)
    if timm.is_model(config.get("model", "")):
        chosen = {key: config[key] for key in ("num_classes", "in_chans") if key in config}
        return outputs_of(timm.create_model(config["model"], **chosen), case)
    dims = config.get("embed_dim", [64, 128, 320, 512])
    routing = routing_options(config)
    for name in ("num_heads", "topk", "n_win", "qk_dim"):
        routing.pop(name, None)
    model = BiFormer(
        num_classes=config.get("num_classes", 1000),
        in_chans=config.get("in_chans", 3),
        dims=tuple(dims),
        depths=tuple(config.get("depth", [3, 4, 8, 3])),
        topks=tuple(topk if topk > 0 else None for topk in config.get("topks", [8, 8, -1, -1])),
        n_win=config.get("n_win", 7),
        head_dim=config.get("head_dim", 64),
        qk_dims=tuple(config.get("qk_dims", dims)),
        mlp_ratios=tuple(config.get("mlp_ratios", [4, 4, 4, 4])),
        pos_dwconv=config.get("before_attn_dwconv", 3),
        layer_scale=config.get("layer_scale_init_value", -1),
        pre_norm=config.get("pre_norm", True),
        attention_options=routing,
    )
    if routing.get("kv_downsample_mode", "identity") != "identity":  # the authors have a side for every stage
        for stage, side in zip(model.stages, config["kv_per_wins"], strict=True):
            for unit in stage:
                unit.attn.kv_per_win = side
    return outputs_of(model, case)


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "ops/bra_legacy.py BiLevelRoutingAttention": legacy_attention,
    "ops/bra_legacy.py BiLevelRoutingAttention ret_attn_mask=True": legacy_internals,
    "ops/bra_nchw.py nchwBRA": nchw_attention,
    "models/_common.py Attention": lambda case: full_attention(
        Case(**vars(case) | {"config": case.config | {"side_dwconv": 0}}), "input", planar=False
    ),
    "models/_common.py AttentionLePE": lambda case: full_attention(case, "input", planar=False),
    "models/_common.py nchwAttentionLePE": lambda case: full_attention(case, "value", planar=True),
    "models/biformer.py Block": block,
    "models/biformer.py BiFormer": network,
    "models BiFormer": network,
    "depth cut)": network,
    **{
        f"models{file} {name}": network
        for name in ("biformer_tiny", "biformer_small", "biformer_base", "biformer_stl", "biformer_stl_nchw")
        for file in ("", "/biformer.py", "/biformer_stl.py", "/biformer_stl_nchw.py")
    },
}
