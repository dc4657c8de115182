"""ViG-H, a pyramid of gated linear attention.

Source: Liao et al. 2024, arXiv:2405.18425, table 1; hustvl/ViG@dfb9d32, classification/models/vig_h.py, whose
parameter names are kept. Differs from it: blocks compute channels last and `reset_classifier` works.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, GluMlp, calculate_drop_path_rates
from timm.models import checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..attention.vig import VigAttention
from . import vig
from .pyramid import Pyramid, build_variant, init_linear
from .van import ChannelNorm

__all__ = ["KEYS", "PAPER", "TOP1", "Block", "ViGH", "checkpoint_filter_fn"]

PAPER = "arXiv:2405.18425"

#: A name that only files of this family have, today's and the older one.
KEYS = (r"^layers\.\d+\.blocks\.\d+\.(op|self_attention)\.gk_proj\.",)

#: Published ImageNet-1K top-1 accuracy (%) at 224 x 224.
TOP1: dict[str, float] = {"vig_h_tiny.in1k": 82.8, "vig_h_small.in1k": 83.8, "vig_h_base.in1k": 84.2}


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm, and added.

    Args:
        dim: channels.
        num_heads: number of heads.
        drop_path_rate: stochastic depth rate, the probability of dropping a branch in training, 0-1.
        attention: options of `VigAttention`.

    Example:
        >>> Block(16, num_heads=2)(torch.rand(2, 13, 17, 16)).shape
        torch.Size([2, 13, 17, 16])
    """

    def __init__(self, dim: int, *, num_heads: int, drop_path_rate: float = 0.0, **attention: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = VigAttention(dim, num_heads=num_heads, **attention)
        self.norm2 = nn.LayerNorm(dim)
        hidden = 32 * -(-(dim * 8 // 3) // 32)  # 8/3 of the channels, rounded up to 32s
        self.mlp = GluMlp(dim, 2 * hidden, act_layer=nn.SiLU, bias=False, gate_last=False)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Mix positions, then channels."""
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViGH(Pyramid):
    """Hierarchical network of gated linear attention.

    Args:
        num_classes: classes; 0 for no classifier.
        in_chans: channels of the image.
        global_pool: timm's pooling before the classifier: avg, max, avgmax, catavgmax, or "" with no classes.
        dims: channels of each stage.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        conv_act: whether SiLU follows the convolution of the attention.
        out_act: whether SiLU comes before the last projection of the attention.
        drop_rate: dropout before the classifier, 0-1.
        drop_path_rate: stochastic depth rate of the last block, 0-1; it increases linearly from 0.
        device: device of the parameters.
        dtype: type of the parameters.

    Example:
        >>> model = ViGH(num_classes=10, dims=(8, 16), depths=(1, 1), num_heads=(1, 2))
        >>> model(torch.rand(1, 3, 33, 50)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 5, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        conv_act: bool = False,
        out_act: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features=dims[-1], in_chans=in_chans, drop_rate=drop_rate)
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**stage, "module": f"layers.{stage}"} for stage, dim in enumerate(dims)
        ]
        first = dims[0]
        self.patch_embed = _numbered(
            {
                0: nn.Conv2d(in_chans, first // 2, 3, stride=2, padding=1),
                2: ChannelNorm(first // 2),
                4: nn.GELU(),
                5: nn.Conv2d(first // 2, first, 3, stride=2, padding=1),
                7: ChannelNorm(first),
            }
        )
        rates: Iterator[Any] = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        options = {"conv_act": conv_act, "out_act": out_act}
        self.layers = nn.ModuleList()
        for dim, wider, depth, heads in zip(dims, (*dims[1:], None), depths, num_heads, strict=True):
            blocks = [Block(dim, num_heads=heads, drop_path_rate=next(rates), **options) for _ in range(depth)]
            downsample: nn.Module = nn.Identity()
            if wider is not None:
                downsample = _numbered({1: nn.Conv2d(dim, wider, 3, stride=2, padding=1), 3: ChannelNorm(wider)})
            self.layers.append(nn.ModuleDict({"blocks": nn.Sequential(*blocks), "downsample": downsample}))
        self.classifier = nn.Sequential(OrderedDict(norm=ChannelNorm(dims[-1]), head=nn.Identity()))
        self.complete(num_classes, global_pool, device, dtype)

    def init_weights(self) -> None:
        """Truncated normal (0.02) and zero biases for linear layers; the attention's convolutions keep their own."""
        for module in self.modules():
            if isinstance(module, VigAttention):
                module.init_weights()
        init_linear(self)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns for timm's layer-wise learning rates; `coarse` groups by stage."""
        if coarse:
            return {"stem": r"^patch_embed", "blocks": [(r"^layers\.(\d+)", None), (r"^classifier\.norm", (99999,))]}
        return {
            "stem": r"^patch_embed",
            "blocks": [
                (r"^layers\.(\d+)\.blocks\.(\d+)", None),
                (r"^layers\.(\d+)\.downsample", (99999,)),
                (r"^classifier\.norm", (99999,)),
            ],
        }

    @property
    def head_parent(self) -> nn.Module:
        """Where the authors have the classifier."""
        return self.classifier

    @property
    def norm_parent(self) -> nn.Module:
        """Where the authors have the norm."""
        return self.classifier

    def forward_stage(
        self, x: Float[Tensor, "batch in_chans h w"], stage: int
    ) -> Float[Tensor, "batch dim height width"]:
        """Run one stage, counted from 0, and first the step that leads to it; see `Pyramid`."""
        step = self.layers[stage - 1].get_submodule("downsample") if stage else self.patch_embed
        x = step(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        blocks = self.layers[stage].get_submodule("blocks")
        x = checkpoint_seq(blocks, x) if self.grad_checkpointing else blocks(x)
        return x.permute(0, 3, 1, 2)

    def cut_stages(self, count: int) -> None:
        """Remove all but the first `count` stages."""
        self.layers = self.layers[:count]
        self.layers[-1].add_module("downsample", nn.Identity())


def _numbered(modules: Mapping[int, nn.Module]) -> nn.Sequential:
    """A sequence under the authors' numbers; the missing ones are permutations there."""
    return nn.Sequential(OrderedDict((str(number), module) for number, module in modules.items()))


#: Older names of the authors -> today's.
_OLDER = (
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
    (r"^(norm|head)\.", r"classifier.\1."),
)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Bring a published file to our names, which are the authors'.

    Args:
        state_dict: the authors' file (`{"model": ...}` or its inside) with today's or older names, or one of ours.
        model: the ViG-H that will load it; 1 x 1 convolutions become linear layers where it has those.
    """
    for nested in ("state_dict", "model"):
        state_dict = state_dict.get(nested, state_dict)
    older = isinstance(model, ViGH)
    renamed = {}
    for name, tensor in state_dict.items():
        name = name.removeprefix("module.")
        for pattern, replacement in _OLDER if older else ():
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return vig.checkpoint_filter_fn(renamed, model)


def _cfg(file: str) -> dict[str, Any]:
    """Preprocessing of the authors: centre crop of 224 from 256, bicubic."""
    return {
        "url": f"https://huggingface.co/hustvl/ViG/resolve/main/{file}",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 224 / 256,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.0",
        "classifier": "classifier.head",
        "paper_ids": PAPER,
        "paper_name": "ViG: Linear-complexity Visual Sequence Learning with Gated Linear Attention",
        "origin_url": "https://github.com/hustvl/ViG",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {
        "vig_h_tiny.in1k": _cfg("vig_h_t_82p8acc.pth"),
        "vig_h_small.in1k": _cfg("vig_h_s_83p8acc.pth"),
        "vig_h_base.in1k": _cfg("vig_h_b_84p2acc.pth"),
    }
)


def _create_vig_h(variant: str, pretrained: bool, settings: dict[str, Any], given: dict[str, Any]) -> nn.Module:
    return build_variant(ViGH, variant, pretrained, checkpoint_filter_fn, settings, given)


@register_model
def vig_h_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-H-T: 28.6 M parameters."""
    return _create_vig_h("vig_h_tiny", pretrained, {"depths": (2, 2, 5, 2), "drop_path_rate": 0.2}, kwargs)


@register_model
def vig_h_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-H-S: 50.1 M parameters."""
    return _create_vig_h("vig_h_small", pretrained, {"depths": (2, 2, 17, 2), "drop_path_rate": 0.3}, kwargs)


@register_model
def vig_h_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-H-B: 88.9 M parameters."""
    wide = {"dims": (128, 256, 512, 1024), "num_heads": (4, 8, 16, 32)}
    return _create_vig_h("vig_h_base", pretrained, {**wide, "depths": (2, 2, 17, 2), "drop_path_rate": 0.6}, kwargs)
