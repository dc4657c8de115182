"""ELA: Xuwei86/ELA_Code, and timm's block of the same name, which is another function."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import timm
import torch
from case import Case
from timm.layers.coord_attn import EfficientLocalAttn
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from regard.vision.attention.ela import EfficientLocalAttention
from regard.vision.backbones.mobilenetv2_ela import checkpoint_filter_fn, convert_inverted_residual
from regard.vision.backbones.resnet_ela import convert_block
from regard.vision.hosts.mobilenet import attention_layer
from regard.vision.hosts.resnet import AttentionBasicBlock, AttentionBottleneck

ELA_L = partial(attention_layer, attention="ela", attention_options={"version": "L"})


def only_input(case: Case) -> Tensor:
    (x,) = case.inputs.values()
    return x


def gate(case: Case) -> dict[str, Tensor]:
    config = case.config
    dim = next(config[key] for key in ("channels", "channel", "in_channels", "dim") if key in config)
    module = EfficientLocalAttention(
        dim,
        version=config.get("version", "B"),
        kernel_size=config.get("kernel_size", case.state["conv.weight"].shape[2]),
        conv_groups=config.get("conv_groups", dim // case.state["conv.weight"].shape[1]),
        norm_groups=config.get("gn_groups"),
    )
    if config.get("version") in ("T", "S", "B", "L") and dim % 32 == 0:  # the published numbers are our defaults
        published = EfficientLocalAttention(dim, version=config["version"])
        for name in ("conv", "gn"):
            assert repr(getattr(published, name)) == repr(getattr(module, name))
    module.load_state_dict(case.state)
    x = only_input(case).permute(0, 2, 3, 1)  # NHWC, NCHW in memory
    planar, ours = module(x), module(x.contiguous())
    torch.testing.assert_close(planar, ours)
    return {"y": ours.permute(0, 3, 1, 2)}


def inverted_residual(case: Case) -> dict[str, Tensor]:
    config = case.config
    common = {"dw_kernel_size": 3, "stride": config["stride"], "act_layer": nn.ReLU6}
    if config["expand_ratio"] == 1:
        block: nn.Module = DepthwiseSeparableConv(config["inp"], config["oup"], **common)
    else:
        block = InvertedResidual(
            config["inp"], config["oup"], exp_ratio=config["expand_ratio"], se_layer=ELA_L, **common
        )
    block.load_state_dict(convert_inverted_residual(case.state))
    return {"y": block.eval()(only_input(case))}


def mobilenet(case: Case) -> dict[str, Tensor]:
    chosen = {key: case.config[key] for key in ("num_classes", "width_mult") if key in case.config}
    model = timm.create_model("mobilenetv2_ela", **chosen)
    model.load_state_dict(checkpoint_filter_fn(case.state, model))
    return {"y": model.eval()(only_input(case))}


def residual_block(case: Case) -> dict[str, Tensor]:
    config, state = case.config, case.state
    bottleneck = "conv3.weight" in state
    weight = state["feat1.conv.weight" if bottleneck else "feat0.conv.weight"]
    options = {"kernel_size": weight.shape[2], "conv_groups": weight.shape[0] // weight.shape[1]}
    named = re.search(r"gn[^0-9]*(\d+)", json_words(config))
    options["norm_groups"] = int(named[1]) if named else 16
    inplanes, planes, stride = config["inplanes"], config["planes"], config.get("stride", 1)
    downsample = None
    if "downsample.0.weight" in state:
        wide = state["downsample.0.weight"].shape[0]
        downsample = nn.Sequential(nn.Conv2d(inplanes, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    block = (AttentionBottleneck if bottleneck else AttentionBasicBlock)(
        inplanes,
        planes,
        stride=stride,
        downsample=downsample,
        first_dilation=config.get("dilation"),
        dilation=config.get("dilation", 1),
        attention="ela",
        attention_options=options,
    )
    block.load_state_dict(convert_block(state, block))
    return {"y": block.eval()(only_input(case))}


def json_words(config: dict[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in config.items())


def timms_block(case: Case) -> dict[str, Tensor]:
    config, state = case.config, case.state
    theirs = EfficientLocalAttn(**config).eval()
    theirs.load_state_dict(state)
    kernel, dim = config["kernel_size"], config["channels"]
    ours = EfficientLocalAttention(dim, kernel_size=kernel, conv_groups=dim, norm_groups=1)
    ours.load_state_dict(
        {
            "conv.weight": state["conv_h.weight"].squeeze(-1),
            "gn.weight": state["norm_h.weight"],
            "gn.bias": state["norm_h.bias"],
        }
    )
    x = only_input(case)
    assert (ours(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) - theirs(x)).abs().max() > 0.01
    return {"y": theirs(x)}


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    # the same class names stand for different versions in different files; the config says which
    "attention.py ELA72": gate,
    "attention.py ELA73": gate,
    "attention.py ELA": gate,
    "models/mbv2_ela72.py ELA72": gate,
    "models/mbv2_ela72.py ELA73": gate,
    "computation as in Xuwei86/ELA_Code@cd4594d (author repository)": gate,
    "models/mbv2_ela72.py InvertedResidual": inverted_residual,
    "models/mbv2_ela72.py MBV2_ELA72": mobilenet,
    "backbone/resnet.py Bottleneck": residual_block,
    "backbone/resnet.py BasicBlock": residual_block,
    "timm.layers.coord_attn.EfficientLocalAttn": timms_block,
}
