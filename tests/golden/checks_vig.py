"""ViG: hustvl/ViG, classification/models/vig.py and vig_h.py, and the recurrence of its flash-linear-attention.

The authors' plain model halves the sum of both ways in training and quarters it in evaluation; `y` of its
attention and block, and of whole models, is evaluation, `y_train` is training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch.nn.functional as F
from case import Case
from torch import Tensor, nn

from regard.vision.attention.vig import VigAttention, gated_linear_attention
from regard.vision.backbones import vig, vig_h


def recurrence(case: Case) -> dict[str, Tensor]:
    config = {"normalizer": 16, "gate_shift": 0.0, "gate_scale": 1.0} | case.config
    query, key, value = (case.inputs[name] for name in "qkv")
    decay = {
        way: F.logsigmoid(config["gate_scale"] * case.inputs[name] + config["gate_shift"]) / config["normalizer"]
        for way, name in (("forward", "gate_fwd"), ("backward", "gate_bwd"))
        if name in case.inputs
    }
    outputs = {way: gated_linear_attention(query, key, value, **{way: one}) for way, one in decay.items()}
    return outputs | {"merged": gated_linear_attention(query, key, value, **decay) / 2}


def filled(module: nn.Module, case: Case, family: Any) -> nn.Module:
    module.load_state_dict(family.checkpoint_filter_fn(case.state, module))
    return module.eval()


def only_input(case: Case) -> Tensor:
    (x,) = case.inputs.values()
    return x


def attention_options(config: dict[str, Any]) -> dict[str, Any]:
    """The authors' words for the options of an attention."""
    assert config.get("expand_v", 1) == 1, "the local branch has the width of the input"
    assert config.get("rope_mode", "none") == "none"
    assert config.get("hidden_act", "swish") == config.get("gate_fn", "swish") == "swish"
    assert not config.get("clamp_min")
    words = {
        "expand_k": "expand_key",
        "use_act_in_conv": "conv_act",
        "use_bias_in_dwconv": "conv_bias",
        "use_out_act": "out_act",
        "gate_low_rank_dim": "gate_rank",
        "gate_logit_normalizer": "gate_normalizer",
        "layernorm_eps": "norm_eps",
    }
    return {ours: config[theirs] for theirs, ours in words.items() if theirs in config}


def on_grid(build: Callable[..., nn.Module], case: Case) -> dict[str, Tensor]:
    """A module of (batch, height, width, dim) for tokens in a row, as it is evaluated and as it is trained."""
    x = only_input(case)
    height, width = case.config["grid"]
    return {
        name: filled(build(divisor=divisor), case, vig)(x.unflatten(1, (height, width))).flatten(1, 2)
        for name, divisor in (("y", 4), ("y_train", 2))
    }


def plain_attention(case: Case) -> dict[str, Tensor]:
    config, options = case.config, attention_options(case.config)
    return on_grid(
        lambda **more: VigAttention(config["d_model"], num_heads=config["num_heads"], **options, **more), case
    )


def plain_block(case: Case) -> dict[str, Tensor]:
    config, options = case.config, attention_options(case.config)
    options |= {"num_heads": config["num_attention_heads"], "init_values": config.get("init_values")}
    return on_grid(lambda **more: vig.Block(config["hidden_size"], **options, **more), case)


def plain_model(case: Case) -> dict[str, Tensor]:
    config = {"depth": 12, "num_heads": 2, "embed_dim": 192, "img_size": 224, "patch_size": 16} | case.config
    assert not config.get("if_cls_token")
    assert config.get("if_abs_pos_embed", True)
    assert config.get("classification_mode", "avgpool") == "avgpool"
    options = attention_options(config)
    model = vig.ViG(
        num_classes=config.get("num_classes", 1000),
        in_chans=config.get("channels", 3),
        init_values=config.get("init_values"),
        **{name: config[name] for name in ("depth", "num_heads", "embed_dim", "img_size", "patch_size")},
        **{name: options[name] for name in ("conv_act", "conv_bias", "out_act") if name in options},
    )
    sizes = {"vig_tiny": (192, 12), "vig_small": (384, 12), "vig_base": (768, 12)}
    for name, size in sizes.items():
        if (config["embed_dim"], config["depth"], config["img_size"]) == (*size, 224):
            published = timm.create_model(name, num_classes=model.num_classes, drop_path_rate=0.0)
            assert repr(published.blocks) == repr(model.blocks)
            assert published.blocks[0].attn.out_act == model.blocks[0].attn.out_act
            model = published
    return {"y": filled(model, case, vig)(only_input(case))}


def pyramid_attention(case: Case) -> dict[str, Tensor]:
    config, x = case.config, only_input(case)
    module = VigAttention(config["d_model"], num_heads=config["num_heads"], **attention_options(config))
    filled(module, case, vig_h)
    if config.get("channel_first"):
        return {"y": module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)}
    return {"y": module(x)}


def pyramid_block(case: Case) -> dict[str, Tensor]:
    config = case.config
    block = vig_h.Block(config["hidden_dim"], num_heads=config["num_head"], **attention_options(config))
    return {"y": filled(block, case, vig_h)(only_input(case).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)}


def pyramid(case: Case) -> dict[str, Tensor]:
    config, options = case.config, attention_options(case.config)
    dims = config.get("dims", 96)
    model = vig_h.ViGH(
        num_classes=config.get("num_classes", 1000),
        in_chans=config.get("in_chans", 3),
        dims=tuple(dims if isinstance(dims, list) else (dims * 2**stage for stage in range(len(config["depths"])))),
        depths=tuple(config["depths"]),
        num_heads=tuple(config["num_heads"]),
        **{name: options[name] for name in ("conv_act", "out_act") if name in options},
    )
    return {"y": filled(model, case, vig_h)(only_input(case))}


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "fla/ops/gla/naive.py naive_recurrent_gla": recurrence,
    "models/vig.py GatedLinearAttention": plain_attention,
    "models/vig.py GLABlock": plain_block,
    "models/vig.py ViG": plain_model,
    "models/vig_h.py GLA2D": pyramid_attention,
    "models/vig_h.py VSSBlock": pyramid_block,
    "models/vig_h.py HierViG": pyramid,
}
