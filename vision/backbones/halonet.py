"""HaloNets: residual networks whose 3x3 convolutions became halo attention.

Source: Vaswani et al. 2021, arXiv:2103.12731, table 2, whose authors published neither code nor weights; timm 1.0.31
`byoanet`, whose networks and weights these are.

- `regard_halonet26t` and so on are timm's `halonet26t` and so on with our attention instead of timm's, through the
  `self_attn_layer` of timm's `ByobNet`. State dicts and numbers are the same, time and memory are a fraction, and
  images need not be multiples of 256 pixels.
- `halonet_h0`, `halonet_h2` ... `halonet_h7` are the paper's, by the table of keras_cv_attention_models, which has 4
  heads in the first stage. timm's `halonet_h1` has 8; its twin is `regard_halonet_h1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, byoanet, generate_default_cfgs, register_model
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg, LayerFn, SelfAttnBlock
from torch import Tensor, nn

from ..attention.halonet import HaloAttention

__all__ = ["KEYS", "PAPER", "TOP1", "HaloBlock", "HaloLayer", "checkpoint_filter_fn"]

PAPER = "arXiv:2103.12731"

#: A name that only files of this family have.
KEYS = (r"\.self_attn\.pos_embed\.height_rel$",)

#: ImageNet-1K top-1 accuracy (%) of timm's weights, as timm publishes it, at 256 x 256 (haloregnetz_b: 224 x 224).
TOP1: dict[str, float] = {
    "regard_halonet26t.a1h_in1k": 79.134,
    "regard_eca_halonext26ts.c1_in1k": 79.518,
    "regard_sehalonet33ts.ra2_in1k": 80.976,
    "regard_halonet50ts.a1h_in1k": 81.640,
    "regard_haloregnetz_b.ra3_in1k": 81.058,
    "regard_halo2botnet50ts_256.a1h_in1k": 82.084,
    "regard_lamhalobotnet50ts_256.a1h_in1k": 81.552,
}


class HaloLayer(HaloAttention):
    """Halo attention as timm's networks call it: NCHW, no output projection.

    Args:
        dim: channels in.
        feat_size: without effect; timm gives it to every attention.
        device: device of the parameters.
        dtype: type of the parameters.
        options: of `HaloAttention`, which are also those of timm's `HaloAttn`.

    Example:
        >>> HaloLayer(64, stride=2)(torch.rand(2, 64, 13, 17)).shape
        torch.Size([2, 64, 7, 9])
    """

    def __init__(
        self,
        dim: int,
        *,
        feat_size: tuple[int, int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim, **({"proj": False} | options))
        self.to(device=device, dtype=dtype)

    def init_weights(self, zero_init_last: bool = False) -> None:
        """Set timm's initialisation; `zero_init_last` is for other layers of a `ByobNet`."""
        super().init_weights()

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch dim height width"]
    ) -> Float[Tensor, "batch dim_out height_out width_out"]:
        """Attend; the result is channels last in memory."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class HaloBlock(SelfAttnBlock):
    """timm's bottleneck around attention, whose values may be wider than its queries.

    Args:
        in_chs: channels in.
        out_chs: channels out.
        value_ratio: channels of the values over those of the queries.
        stride: 1 or 2.
        layers: makes the layers, as in timm.
        device: device of the parameters.
        dtype: type of the parameters.
        rest: what timm gives a `SelfAttnBlock`.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        *,
        value_ratio: float | int = 1,
        stride: int = 1,
        layers: LayerFn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **rest: Any,
    ) -> None:
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_chs, out_chs, stride=stride, layers=layers, **where, **rest)
        if value_ratio != 1:
            dim = self.conv1_1x1.conv.out_channels  # type: ignore[union-attr]
            wide = int(value_ratio * dim)  # type: ignore[operator]
            self.self_attn = layers.self_attn(dim, dim_out=wide, stride=stride, **where)  # type: ignore[misc]
            self.post_attn = layers.norm_act(wide, **where)
            self.conv3_1x1 = layers.conv_norm_act(wide, out_chs, 1, apply_act=False, **where)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Take the weights out of a file; their names are timm's, as ours are.

    Args:
        state_dict: a plain state dict, or one inside `state_dict`, `model` or `state_dict_ema`, with or without
            the prefix `module.`.
        model: the network that will load it; required by timm's interface, unused here.

    Example:
        >>> list(checkpoint_filter_fn({"state_dict": {"module.head.fc.bias": torch.zeros(5)}}, nn.Identity()))
        ['head.fc.bias']
    """
    for key in ("state_dict_ema", "state_dict", "model"):
        if key in state_dict:
            return checkpoint_filter_fn(state_dict[key], model)
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _with_our_layer(cfg: Any) -> Any:
    """A configuration of timm, of a network, a stage or a block, with our layer in place of every "halo"."""
    if isinstance(cfg, tuple | list):
        return tuple(_with_our_layer(part) for part in cfg)
    changed = {"self_attn_layer": HaloLayer} if cfg.self_attn_layer == "halo" else {}
    if isinstance(cfg, ByoModelCfg):
        changed["blocks"] = _with_our_layer(cfg.blocks)
    return replace(cfg, **changed)


def _from_the_paper(
    *, block: int, halo: int, values: float | int = 1, width: float | int, depth: int, features: int = 0
) -> ByoModelCfg:
    """A row of the paper's table 2: b, h, r_v, r_b, l_3 and d_f."""
    stages = []
    for dim, heads, blocks in ((64, 4, 3), (128, 8, 3), (256, 8, depth), (512, 8, 3)):
        attention = {"num_heads": heads, "dim_head": dim // heads, "block_size": block, "halo_size": halo}
        stages.append(
            ByoBlockCfg(
                type=partial(HaloBlock, value_ratio=values),  # type: ignore[arg-type]
                d=blocks,
                c=int(dim * width),
                s=1 if dim == 64 else 2,
                gs=0,
                br=1 / width,
                self_attn_kwargs=attention,
            )
        )
    return ByoModelCfg(
        blocks=tuple(stages),
        stem_chs=64,
        stem_type="7x7",
        stem_pool="maxpool",
        num_features=features,
        self_attn_layer=HaloLayer,  # type: ignore[arg-type]  # timm accepts classes too
    )


model_cfgs: dict[str, ByoModelCfg] = {
    "halonet_h0": _from_the_paper(block=8, halo=3, width=0.5, depth=7),
    "halonet_h2": _from_the_paper(block=8, halo=3, width=1.25, depth=11),
    "halonet_h3": _from_the_paper(block=10, halo=3, width=1.5, depth=12, features=1024),
    "halonet_h4": _from_the_paper(block=12, halo=2, width=3, depth=12, features=1280),
    "halonet_h5": _from_the_paper(block=14, halo=2, values=2.5, width=2, depth=23, features=1536),
    "halonet_h6": _from_the_paper(block=8, halo=4, values=3, width=2.75, depth=24, features=1536),
    "halonet_h7": _from_the_paper(block=10, halo=3, values=4, width=3.5, depth=26, features=2048),
}


def _cfg(side_px: int) -> dict[str, Any]:
    """Preprocessing of a network without published weights, as timm's for H1."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, side_px, side_px),
        "pool_size": (-(-side_px // 32), -(-side_px // 32)),
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv1.conv",
        "classifier": "head.fc",
        "paper_ids": PAPER,
        "paper_name": "Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
    }


#: timm's networks -> the configuration they are built from.
_TWINS = {
    "halonet_h1": "halonet_h1",
    "halonet26t": "halonet26t",
    "sehalonet33ts": "sehalonet33ts",
    "halonet50ts": "halonet50ts",
    "eca_halonext26ts": "eca_halonext26ts",
    "haloregnetz_b": "haloregnetz_b",
    "halo2botnet50ts_256": "halo2botnet50ts",
    "lamhalobotnet50ts_256": "lamhalobotnet50ts",
}

default_cfgs = generate_default_cfgs(
    {
        f"regard_{name}.{tag}": replace(
            cfg, hf_hub_id=cfg.hf_hub_id and f"timm/{name}.{tag}", min_input_size=None, paper_ids=PAPER
        )
        for name in _TWINS
        for tag, cfg in byoanet.default_cfgs[name].cfgs.items()
    }
    | {
        "halonet_h0.untrained": _cfg(256),
        "halonet_h2.untrained": _cfg(256),
        "halonet_h3.untrained": _cfg(320),
        "halonet_h4.untrained": _cfg(384),
        "halonet_h5.untrained": _cfg(448),
        "halonet_h6.untrained": _cfg(512),
        "halonet_h7.untrained": _cfg(600),
    }
)


def _create(variant: str, pretrained: bool, given: dict[str, Any]) -> nn.Module:
    twin = _TWINS.get(variant.removeprefix("regard_"))
    return build_model_with_cfg(
        ByobNet,
        variant,
        pretrained,
        model_cfg=_with_our_layer(byoanet.model_cfgs[twin]) if twin else model_cfgs[variant],
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True},
        **given,
    )


@register_model
def regard_halonet_h1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H1 of timm, 8.1 M parameters: attention in all blocks, 8 heads everywhere; no weights."""
    return _create("regard_halonet_h1", pretrained, kwargs)


@register_model
def regard_halonet26t(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet26-T of timm, 12.5 M parameters: attention in the last two stages."""
    return _create("regard_halonet26t", pretrained, kwargs)


@register_model
def regard_sehalonet33ts(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """SE-HaloNet33-TS of timm, 13.7 M parameters: squeeze-and-excitation in the convolutional blocks."""
    return _create("regard_sehalonet33ts", pretrained, kwargs)


@register_model
def regard_halonet50ts(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet50-TS of timm, 22.7 M parameters: attention in the last three stages."""
    return _create("regard_halonet50ts", pretrained, kwargs)


@register_model
def regard_eca_halonext26ts(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ECA-HaloNeXt26-TS of timm, 10.8 M parameters: grouped convolutions with channel attention."""
    return _create("regard_eca_halonext26ts", pretrained, kwargs)


@register_model
def regard_haloregnetz_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloRegNetZ-B of timm, 11.7 M parameters: blocks of 7, for 224 x 224."""
    return _create("regard_haloregnetz_b", pretrained, kwargs)


@register_model
def regard_halo2botnet50ts_256(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Halo2BoTNet50-TS of timm, 22.6 M parameters: global attention in the last stage fixes the image size."""
    return _create("regard_halo2botnet50ts_256", pretrained, kwargs)


@register_model
def regard_lamhalobotnet50ts_256(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """LamHaloBoTNet50-TS of timm, 22.6 M parameters: lambda, halo and global attention; fixed image size."""
    return _create("regard_lamhalobotnet50ts_256", pretrained, kwargs)


@register_model
def halonet_h0(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H0: 5.5 M parameters, 77.9 % top-1 at 256 x 256 in the paper; no weights."""
    return _create("halonet_h0", pretrained, kwargs)


@register_model
def halonet_h2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H2: 9.4 M parameters, 80.4 % top-1 at 256 x 256 in the paper; no weights."""
    return _create("halonet_h2", pretrained, kwargs)


@register_model
def halonet_h3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H3: 11.8 M parameters, 81.9 % top-1 at 320 x 320 in the paper; no weights."""
    return _create("halonet_h3", pretrained, kwargs)


@register_model
def halonet_h4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H4: 19.1 M parameters, 83.3 % top-1 at 384 x 384 in the paper; no weights."""
    return _create("halonet_h4", pretrained, kwargs)


@register_model
def halonet_h5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H5: 30.7 M parameters, 84.0 % top-1 at 448 x 448 in the paper; no weights."""
    return _create("halonet_h5", pretrained, kwargs)


@register_model
def halonet_h6(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H6: 43.4 M parameters, 84.4 % top-1 at 512 x 512 in the paper; no weights."""
    return _create("halonet_h6", pretrained, kwargs)


@register_model
def halonet_h7(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """HaloNet-H7: 67.4 M parameters, 84.9 % top-1 at 600 x 600 in the paper; no weights."""
    return _create("halonet_h7", pretrained, kwargs)
