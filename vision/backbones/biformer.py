"""BiFormer: a pyramid of bi-level routing attention, with full attention in its last stage.

Source: Zhu et al. 2023, arXiv:2303.08810, table 1; rayleizhu/BiFormer@1697bbb, whose parameter names are kept for
T, S and B; `checkpoint_filter_fn` maps those of its STL variants (Swin-T's layout) and of its refactored modules.
Differs from it: any image size is taken, memory is channels last and `reset_classifier` works.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, calculate_drop_path_rates, to_2tuple
from timm.models import checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..attention.biformer import BiLevelRoutingAttention
from ..attention.lepe import LePEAttention
from .pyramid import Pyramid, build_variant

__all__ = ["AVERAGED", "KEYS", "PAPER", "TOP1", "BiFormer", "Block", "checkpoint_filter_fn"]

PAPER = "arXiv:2303.08810"

#: A name that only files of this family have, of whichever of the authors' modules.
KEYS = (r"(^|\.)stages\.\d+\.(blocks\.)?\d+\.attn\.(lepe|wo|output_linear)\.",)

#: The authors keep an average over training too (`model_ema`), but measure and publish the plain weights (`model`):
#: main.py of their repository.
AVERAGED = False

#: Published ImageNet-1K top-1 accuracy (%) at 224 x 224.
TOP1: dict[str, float] = {
    "biformer_tiny.in1k": 81.4,
    "biformer_small.in1k": 83.8,
    "biformer_base.in1k": 84.3,
    "biformer_stl.in1k": 82.7,
    "biformer_stl_nchw.in1k": 82.7,
}


class Block(nn.Module):
    """A depthwise convolution that encodes positions, attention and an MLP, each added to what came before.

    Args:
        dim: channels, a multiple of `num_heads`.
        num_heads: heads of bi-level routing attention; full attention always has 8, as the authors' has.
        topk: regions that a region attends to; None is full attention with `LePEAttention`.
        mlp_ratio: hidden width of the MLP over `dim`.
        pos_dwconv: side of the convolution before the attention, odd; 0 for none.
        layer_scale: initial layer scale of the branches; 0 or less for none.
        pre_norm: whether the norms come before attention and MLP (pre-norm) or after the sums.
        lepe_of: what full attention convolves; see `LePEAttention`.
        drop_rate: dropout after the MLP, 0-1.
        drop_path_rate: stochastic depth rate, the probability of dropping a branch in training, 0-1.
        attention_options: further options of `BiLevelRoutingAttention`.

    Example:
        >>> Block(64, num_heads=2, topk=4)(torch.rand(2, 64, 14, 17)).shape
        torch.Size([2, 64, 14, 17])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        topk: int | None = 4,
        mlp_ratio: float | int = 4,
        pos_dwconv: int = 3,
        layer_scale: float | int = -1,
        pre_norm: bool = True,
        lepe_of: Literal["input", "value"] = "input",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        attention_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = dict(attention_options or {})
        self.pre_norm = pre_norm
        self.pos_embed = (
            nn.Conv2d(dim, dim, pos_dwconv, padding=pos_dwconv // 2, groups=dim) if pos_dwconv > 0 else None
        )
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn: nn.Module
        if topk is None:
            self.attn = LePEAttention(dim, side_dwconv=options.get("side_dwconv", 5), lepe_of=lepe_of)
        else:
            self.attn = BiLevelRoutingAttention(dim, num_heads=num_heads, topk=topk, **options)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        hidden = int(mlp_ratio * dim)
        # the second is where the authors could put a convolution; none of their networks has it
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.Identity(), nn.GELU(), nn.Linear(hidden, dim))
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.gamma1 = nn.Parameter(torch.full((dim,), float(layer_scale))) if layer_scale > 0 else None
        self.gamma2 = nn.Parameter(torch.full((dim,), float(layer_scale))) if layer_scale > 0 else None

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix positions, then channels; the result is channels last in memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        grid = x.permute(0, 2, 3, 1)  # batch height width dim
        if self.pre_norm:
            grid = grid + self._branch(self.attn(self.norm1(grid)), self.gamma1)
            grid = grid + self._branch(self._transform(self.norm2(grid)), self.gamma2)
        else:
            grid = self.norm1(grid + self._branch(self.attn(grid), self.gamma1))
            grid = self.norm2(grid + self._branch(self._transform(grid), self.gamma2))
        return grid.permute(0, 3, 1, 2)

    def _transform(self, grid: Tensor) -> Tensor:
        return self.drop(self.mlp(grid))

    def _branch(self, out: Tensor, gamma: nn.Parameter | None) -> Tensor:
        return self.drop_path(out if gamma is None else gamma * out)


class BiFormer(Pyramid):
    """BiFormer and its ablation in Swin-T's layout.

    Args:
        num_classes: classes; 0 for no classifier.
        in_chans: channels of the image.
        global_pool: timm's pooling before the classifier: avg, max, avgmax, catavgmax, or "" with no classes.
        dims: channels of each stage, multiples of `head_dim`.
        depths: blocks of each stage.
        topks: regions that a region attends to, for each stage; None is full attention.
        n_win: regions on a side, or None for regions of about 8 x 8 tokens; weights do not depend on it. The authors
            use 7 for images of 224 pixels, 8 for 512 and 16 on COCO.
        head_dim: channels of a head.
        qk_dims: widths of queries and keys; `dims` without it.
        mlp_ratios: hidden width of the MLPs over `dims`.
        layout: "biformer", or "swin": patches of 4 x 4 and 2 x 2 that do not overlap, no `pos_dwconv`.
        pos_dwconv: side of the convolution before each attention, odd; 0 for none.
        layer_scale: initial layer scale of the branches; 0 or less for none.
        pre_norm: whether the norms come before attention and MLP (pre-norm) or after the sums.
        lepe_of: what full attention convolves; see `LePEAttention`.
        padding: of sizes that `n_win` does not divide; see `BiLevelRoutingAttention`.
        attention_options: further options of `BiLevelRoutingAttention`.
        drop_rate: dropout before the classifier, 0-1.
        proj_drop_rate: dropout after the MLPs, 0-1.
        drop_path_rate: stochastic depth rate of the last block, 0-1; it increases linearly from 0.
        device: device of the parameters.
        dtype: type of the parameters.

    Example:
        >>> model = BiFormer(num_classes=10, dims=(32, 64), depths=(1, 1), topks=(1, None), mlp_ratios=(3, 3))
        >>> model(torch.rand(1, 3, 57, 64)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 8, 2),
        topks: Sequence[int | None] = (1, 4, 16, None),
        n_win: int | None = 7,
        head_dim: int = 32,
        qk_dims: Sequence[int] | None = None,
        mlp_ratios: Sequence[float | int] = (3, 3, 3, 3),
        layout: Literal["biformer", "swin"] = "biformer",
        pos_dwconv: int = 3,
        layer_scale: float | int = -1,
        pre_norm: bool = True,
        lepe_of: Literal["input", "value"] = "input",
        padding: Literal["mask", "input", "projected"] = "input",
        attention_options: Mapping[str, Any] | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features=dims[-1], in_chans=in_chans, drop_rate=drop_rate)
        self.feature_info = []
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        rates = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        settings = zip(dims, depths, topks, qk_dims or dims, mlp_ratios, strict=True)
        for stage, (dim, depth, topk, qk_dim, mlp_ratio) in enumerate(settings):
            before = dims[stage - 1] if stage else in_chans
            self.downsample_layers.append(_downsample(before, dim, first=stage == 0, layout=layout))
            blocks = [
                Block(
                    dim,
                    num_heads=max(1, qk_dim // head_dim),
                    topk=topk,
                    mlp_ratio=mlp_ratio,
                    pos_dwconv=pos_dwconv if layout == "biformer" else 0,
                    layer_scale=layer_scale,
                    pre_norm=pre_norm,
                    lepe_of=lepe_of,
                    drop_rate=proj_drop_rate,
                    drop_path_rate=next(rates),  # type: ignore[arg-type]
                    attention_options={"n_win": n_win, "qk_dim": qk_dim, "padding": padding}
                    | dict(attention_options or {}),
                )
                for _ in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": dim, "reduction": 2 ** (stage + 2), "module": f"stages.{stage}"})
        self.norm: nn.Module = nn.BatchNorm2d(self.num_features)
        self.complete(num_classes, global_pool, device, dtype)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay."""
        return {name for name, _ in self.named_parameters() if name.endswith(("gamma1", "gamma2"))}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns for timm's layer-wise learning rates; `coarse` groups by stage."""
        stem = r"^downsample_layers\.0"
        if coarse:
            return {"stem": stem, "blocks": [(r"^(?:downsample_layers|stages)\.(\d+)", None), (r"^norm", (99999,))]}
        return {
            "stem": stem,
            "blocks": [
                (r"^downsample_layers\.(\d+)", (0,)),
                (r"^stages\.(\d+)\.(\d+)", None),
                (r"^norm", (99999,)),
            ],
        }

    @property
    def norm_parent(self) -> nn.Module:
        """The network itself: one norm, after the last stage."""
        return self

    def forward_stage(
        self, x: Float[Tensor, "batch in_chans h w"], stage: int
    ) -> Float[Tensor, "batch dim height width"]:
        """Run one stage, counted from 0; see `Pyramid`."""
        x = self.downsample_layers[stage](x.contiguous(memory_format=torch.channels_last))
        blocks = self.stages[stage]
        return checkpoint_seq(blocks, x) if self.grad_checkpointing and not torch.jit.is_scripting() else blocks(x)

    def cut_stages(self, count: int) -> None:
        """Remove all but the first `count` stages."""
        self.downsample_layers = self.downsample_layers[:count]
        self.stages = self.stages[:count]


def _downsample(dim_in: int, dim: int, *, first: bool, layout: Literal["biformer", "swin"]) -> nn.Sequential:
    """What stands before a stage: a step of 4 before the first, of 2 before the others."""
    if layout == "swin":
        if first:
            return nn.Sequential(nn.Conv2d(dim_in, dim, 4, stride=4), nn.BatchNorm2d(dim))
        return nn.Sequential(nn.BatchNorm2d(dim_in), nn.Conv2d(dim_in, dim, 2, stride=2))
    half = nn.Sequential(nn.Conv2d(dim_in, dim, 3, stride=2, padding=1), nn.BatchNorm2d(dim))
    if not first:
        return half
    middle = dim // 2
    stem = nn.Sequential(nn.Conv2d(dim_in, middle, 3, stride=2, padding=1), nn.BatchNorm2d(middle), nn.GELU())
    return stem.extend(nn.Sequential(nn.Conv2d(middle, dim, 3, stride=2, padding=1), nn.BatchNorm2d(dim)))


#: Parts of the names in the authors' STL networks and refactored modules -> those in T, S and B.
_REFACTORED = (
    (r"^(?:module\.|backbone\.)+", ""),
    (r"^(stages\.\d+)\.blocks\.", r"\1."),
    (r"(^|\.)mlp\.2\.", r"\1mlp.3."),
    (r"(^|\.)qkv_linear\.", r"\1qkv.qkv."),
    (r"(^|\.)output_linear\.", r"\1wo."),
)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Bring a published file to our names, which are those of the authors' T, S and B.

    Args:
        state_dict: a file of the authors (`{"model": ...}`, `{"state_dict": ...}` or its inside), of any of their
            networks or attention modules, or a file of ours.
        model: what will load it; required by timm's interface, unused here.

    Example:
        >>> weights = {"model": {"stages.0.blocks.1.attn.output_linear.weight": torch.zeros(8, 8, 1, 1)}}
        >>> for name, tensor in checkpoint_filter_fn(weights, BiFormer()).items():
        ...     print(name, tuple(tensor.shape))
        stages.0.1.attn.wo.weight (8, 8)
    """
    for wrapper in ("model", "state_dict") * 2:
        if isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in _REFACTORED:
            name = re.sub(pattern, replacement, name)
        # 1 x 1 convolutions of the refactored modules are linear layers here
        if tensor.ndim == 4 and re.search(r"(^|\.)(qkv|wo|proj|mlp\.\d)\.weight$", name):
            tensor = tensor.flatten(1)
        renamed[name] = tensor
    return renamed


def _cfg(share: str, **changed: Any) -> dict[str, Any]:
    """Preprocessing of the authors: centre crop of 224 from 256.

    Their links answered "share id was malformed" in 2026 (issue 53 of their repository): a local file loads with
    `regard.create_model(name, weights=path)`.
    """
    return {
        "url": f"https://api.onedrive.com/v1.0/shares/{share}/root/content",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "downsample_layers.0.0",
        "classifier": "head",
        "paper_ids": PAPER,
        "paper_name": "BiFormer: Vision Transformer with Bi-Level Routing Attention",
        "origin_url": "https://github.com/rayleizhu/BiFormer",
        "license": "mit",
        "notes": ("the links no longer answer, bring the file",),
        **changed,
    }


default_cfgs = generate_default_cfgs(
    {
        "biformer_tiny.in1k": _cfg("s!AkBbczdRlZvChHEOoGkgwgQzEDlM"),
        "biformer_small.in1k": _cfg("s!AkBbczdRlZvChHDyM-x9KWRBZ832"),
        "biformer_base.in1k": _cfg("s!AkBbczdRlZvChHI_XPhoadjaNxtO"),
        "biformer_stl.in1k": _cfg("s!AkBbczdRlZvChSf-m7ujkvx9lIQ1"),
        "biformer_stl_nchw.in1k": _cfg("s!AkBbczdRlZvChWYrKbWbMgqd2Ai0"),
    }
)


def _create_biformer(variant: str, pretrained: bool, settings: dict[str, Any], given: dict[str, Any]) -> nn.Module:
    """Build a variant; `img_size` is only for the data pipeline, the network accepts any size."""
    img_size = given.pop("img_size", None)
    model = build_variant(BiFormer, variant, pretrained, checkpoint_filter_fn, settings, given)
    if img_size is not None:
        size = (given.get("in_chans", 3), *to_2tuple(img_size))
        cast(dict[str, Any], model.pretrained_cfg)["input_size"] = size
    return model


@register_model
def biformer_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """BiFormer-T: 13.1 M parameters."""
    return _create_biformer("biformer_tiny", pretrained, {"depths": (2, 2, 8, 2), "drop_path_rate": 0.1}, kwargs)


@register_model
def biformer_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """BiFormer-S: 25.5 M parameters."""
    return _create_biformer("biformer_small", pretrained, {"depths": (4, 4, 18, 4), "drop_path_rate": 0.15}, kwargs)


@register_model
def biformer_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """BiFormer-B: 56.8 M parameters."""
    settings = {"dims": (96, 192, 384, 768), "depths": (4, 4, 18, 4), "drop_path_rate": 0.4}
    return _create_biformer("biformer_base", pretrained, settings, kwargs)


_SWIN = {
    "dims": (96, 192, 384, 768),
    "depths": (2, 2, 6, 2),
    "mlp_ratios": (4, 4, 4, 4),
    "layout": "swin",
    "drop_path_rate": 0.1,
}


@register_model
def biformer_stl(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """BiFormer-STL, bi-level routing in Swin-T's layout: 28.4 M parameters."""
    return _create_biformer("biformer_stl", pretrained, _SWIN, kwargs)


@register_model
def biformer_stl_nchw(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """BiFormer-STL of the authors' refactored modules, with another padding and LePE: 28.4 M parameters."""
    settings = _SWIN | {"padding": "projected", "lepe_of": "value"}
    return _create_biformer("biformer_stl_nchw", pretrained, settings, kwargs)
