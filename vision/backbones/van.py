"""VAN, the visual attention network: a convolutional pyramid of large kernel attention.

Source: Guo et al. 2022, arXiv:2202.09741, table 3; Visual-Attention-Network/VAN-Classification@e19779b, whose
parameter names are kept. Differs from it: memory is channels last and `reset_classifier` works.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.layers import DropPath, calculate_drop_path_rates, trunc_normal_
from timm.models import checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..attention.van import CACHE_NUMEL, VanAttention
from .pyramid import Pyramid, build_variant

__all__ = ["KEYS", "PAPER", "TOP1", "VAN", "Block", "Mlp", "OverlapPatchEmbed", "checkpoint_filter_fn"]

PAPER = "arXiv:2202.09741"

#: Names that only files of this family have: the authors', Hugging Face's and mmpretrain's.
KEYS = (
    r"\.attn\.spatial_gating_unit\.conv_spatial\.",
    r"^van\.encoder\.stages\.\d+\.layers\.",
    r"^backbone\.blocks?\d\.\d+\.attn\.spatial_gating_unit\.",
)

#: Published ImageNet-1K top-1 accuracy (%) at 224 x 224.
TOP1: dict[str, float] = {
    "van_b0.in1k": 75.4,
    "van_b1.in1k": 81.1,
    "van_b2.in1k": 82.8,
    "van_b3.in1k": 83.9,
}


class DWConv(nn.Module):
    """The depthwise 3 x 3 convolution of the MLP, a module of its own for the sake of the authors' names."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix each channel with its neighbours."""
        return self.dwconv(x)


class Mlp(nn.Module):
    """1 x 1 convolution, depthwise 3 x 3, GELU, 1 x 1.

    On a CPU without gradients the batch is computed in chunks that fit the cache.

    Args:
        dim: channels in.
        hidden: channels between.
        dim_out: channels out; `dim` without it.
        drop_rate: dropout after GELU and at the end, 0-1.
    """

    def __init__(self, dim: int, hidden: int, *, dim_out: int | None = None, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = DWConv(hidden)
        self.fc2 = nn.Conv2d(hidden, dim_out or dim, 1)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim_out height width"]:
        """Transform every position."""
        size = x[:, 0].numel() * self.fc1.out_channels
        if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling() or size <= CACHE_NUMEL:
            return self._transform(x)
        images = max(1, CACHE_NUMEL * len(x) // size)
        return torch.cat([self._transform(chunk) for chunk in x.split(images)])

    def _transform(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.dwconv(self.fc1(x)))  # batch hidden height width
        return self.drop(self.fc2(self.drop(hidden)))


class Block(nn.Module):
    """Attention and MLP, each after a BatchNorm, scaled per channel and added.

    Args:
        dim: channels.
        mlp_ratio: hidden width of the MLP over `dim`.
        drop_rate: dropout in the MLP, 0-1.
        drop_path_rate: stochastic depth rate, the probability of dropping a branch in training, 0-1.

    Example:
        >>> Block(8)(torch.rand(2, 8, 13, 17)).shape
        torch.Size([2, 8, 13, 17])
    """

    def __init__(
        self, dim: int, *, mlp_ratio: float | int = 4, drop_rate: float = 0.0, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = VanAttention(dim)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop_rate=drop_rate)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-2))

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix positions, then channels; the result is channels last in memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        mixed = self.attn(self.norm1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * mixed)
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


class OverlapPatchEmbed(nn.Module):
    """A strided convolution whose windows overlap, and a BatchNorm.

    Args:
        in_chans: channels in.
        dim: channels out.
        patch_px: side of a window, odd.
        stride: step between windows.
    """

    def __init__(self, in_chans: int, dim: int, *, patch_px: int = 7, stride: int = 4) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_px, stride=stride, padding=patch_px // 2)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Float[Tensor, "batch in_chans h w"]) -> Float[Tensor, "batch dim height width"]:
        """Make the map smaller and wider in channels."""
        return self.norm(self.proj(x))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW map; channels last in memory it is a view of the usual one."""

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Normalise every position."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class VAN(Pyramid):
    """Visual attention network.

    Args:
        num_classes: classes; 0 for no classifier.
        in_chans: channels of the image.
        global_pool: timm's pooling before the classifier: avg, max, avgmax, catavgmax, or "" with no classes.
        dims: channels of each stage.
        mlp_ratios: hidden width of the MLPs over `dims`.
        depths: blocks of each stage.
        drop_rate: dropout before the classifier, 0-1.
        proj_drop_rate: dropout in the MLPs, 0-1.
        drop_path_rate: stochastic depth rate of the last block, 0-1; it increases linearly from 0.
        device: device of the parameters.
        dtype: type of the parameters.

    Example:
        >>> model = VAN(num_classes=10, dims=(8, 16), mlp_ratios=(4, 4), depths=(1, 1))
        >>> model(torch.rand(1, 3, 33, 50)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        dims: Sequence[int] = (32, 64, 160, 256),
        mlp_ratios: Sequence[float | int] = (8, 8, 4, 4),
        depths: Sequence[int] = (3, 3, 5, 2),
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features=dims[-1], in_chans=in_chans, drop_rate=drop_rate)
        self.feature_info = []
        rates: Iterator[Any] = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        for stage, (dim, ratio, depth) in enumerate(zip(dims, mlp_ratios, depths, strict=True), start=1):
            patch_px, stride = (7, 4) if stage == 1 else (3, 2)
            embed = OverlapPatchEmbed(in_chans, dim, patch_px=patch_px, stride=stride)
            blocks = [
                Block(dim, mlp_ratio=ratio, drop_rate=proj_drop_rate, drop_path_rate=next(rates)) for _ in range(depth)
            ]
            self.add_module(f"patch_embed{stage}", embed)
            self.add_module(f"block{stage}", nn.Sequential(*blocks))
            self.add_module(f"norm{stage}", ChannelNorm(dim, eps=1e-6))
            self.feature_info.append({"num_chs": dim, "reduction": 2 ** (stage + 1), "module": f"norm{stage}"})
            in_chans = dim
        self.complete(num_classes, global_pool, device, dtype)

    def init_weights(self) -> None:
        """Normal by fan-out for convolutions, truncated normal (0.02) for the classifier, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay."""
        return {name for name, _ in self.named_parameters() if "layer_scale" in name}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns for timm's layer-wise learning rates; `coarse` groups by stage."""
        if coarse:
            return {"stem": r"^patch_embed1", "blocks": r"^(?:patch_embed|block|norm)(\d+)"}
        return {
            "stem": r"^patch_embed1",
            "blocks": [
                (r"^patch_embed(\d+)", (0,)),
                (r"^block(\d+)\.(\d+)", None),
                (r"^norm(\d+)", (99999,)),
            ],
        }

    def forward_stage(
        self, x: Float[Tensor, "batch in_chans h w"], stage: int
    ) -> Float[Tensor, "batch dim height width"]:
        """Run one stage, counted from 0 (the parameters' names count from 1); see `Pyramid`."""
        embed, blocks, norm = (self.get_submodule(f"{name}{stage + 1}") for name in ("patch_embed", "block", "norm"))
        x = embed(x.contiguous(memory_format=torch.channels_last))
        x = checkpoint_seq(blocks, x) if self.grad_checkpointing and not torch.jit.is_scripting() else blocks(x)
        return norm(x)

    def cut_stages(self, count: int) -> None:
        """Remove all but the first `count` stages."""
        for stage in range(count + 1, self.num_stages + 1):
            for name in ("patch_embed", "block", "norm"):
                delattr(self, f"{name}{stage}")


#: Parts of Hugging Face's names (transformers 4.30) inside a stage -> the authors'; {n} is the stage from 1.
_HUGGING_FACE = (
    (r"^embeddings\.convolution\.", "patch_embed{n}.proj."),
    (r"^embeddings\.normalization\.", "patch_embed{n}.norm."),
    (r"^normalization\.", "norm{n}."),
    (r"^layers\.(\d+)\.", r"block{n}.\1."),
    (r"\.pre_normomalization\.", ".norm1."),
    (r"\.post_normalization\.", ".norm2."),
    (r"\.attention_scaling\.weight$", ".layer_scale_1"),
    (r"\.mlp_scaling\.weight$", ".layer_scale_2"),
    (r"\.attention\.pre_projection\.conv\.", ".attn.proj_1."),
    (r"\.attention\.post_projection\.", ".attn.proj_2."),
    (r"\.attention\.attention_layer\.attention\.", ".attn.spatial_gating_unit."),
    (r"\.mlp\.in_dense\.", ".mlp.fc1."),
    (r"\.mlp\.depth_wise\.", ".mlp.dwconv.dwconv."),
    (r"\.mlp\.out_dense\.", ".mlp.fc2."),
    (r"\.depth_wise\.", ".conv0."),
    (r"\.depth_wise_dilated\.", ".conv_spatial."),
    (r"\.point_wise\.", ".conv1."),
)

#: Parts of mmpretrain's names -> the authors'.
_MMPRETRAIN = (
    (r"^backbone\.", ""),
    (r"^blocks(\d)\.", r"block\1."),
    (r"^(patch_embed\d)\.projection\.", r"\1.proj."),
    (r"\.DW_conv\.", ".conv0."),
    (r"\.DW_D_conv\.", ".conv_spatial."),
    (r"\.mlp\.dwconv\.(?!dwconv)", ".mlp.dwconv.dwconv."),
    (r"^head\.fc\.", "head."),
)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Bring a published file to our names, which are the authors'.

    Args:
        state_dict: the authors' file (`{"state_dict": ...}` or its inside), Hugging Face's
            `VanForImageClassification`, mmpretrain's `ImageClassifier`, or a file of ours.
        model: the VAN that will load it; required by timm's interface, unused here.

    Example:
        >>> weights = {"van.encoder.stages.0.layers.1.mlp.depth_wise.bias": torch.zeros(8)}
        >>> list(checkpoint_filter_fn(weights, VAN(dims=(8,), mlp_ratios=(4,), depths=(2,))))
        ['block1.1.mlp.dwconv.dwconv.bias']
    """
    while "state_dict" in state_dict:
        state_dict = state_dict["state_dict"]
    renamed = {}
    for name, tensor in state_dict.items():
        # Hugging Face's network-level norm is never used; mmpretrain's preprocessor holds mean and std
        if not name.startswith(("van.layernorm.", "data_preprocessor.")):
            renamed[_author_name(name.removeprefix("module."))] = tensor
    return renamed


def _author_name(name: str) -> str:
    """The authors' name of a tensor of any of the three collections."""
    hugging_face = re.match(r"van\.encoder\.stages\.(\d+)\.(.*)", name)
    if hugging_face:
        stage, name = str(int(hugging_face[1]) + 1), hugging_face[2]
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement.replace("{n}", stage), name)
        return name
    for pattern, replacement in _MMPRETRAIN:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^classifier\.", "head.", name)


def _cfg(url: str = "", **changed: Any) -> dict[str, Any]:
    """Preprocessing of the authors: mean and std 0.5, centre crop of 224 from 248."""
    return {
        "url": url,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_INCEPTION_MEAN,
        "std": IMAGENET_INCEPTION_STD,
        "first_conv": "patch_embed1.proj",
        "classifier": "head",
        "paper_ids": PAPER,
        "paper_name": "Visual Attention Network",
        "origin_url": "https://github.com/Visual-Attention-Network/VAN-Classification",
        "license": "apache-2.0",
        **changed,
    }


_HUB = "https://huggingface.co/Visual-Attention-Network/VAN-{}-original/resolve/main/van_{}.pth.tar"

default_cfgs = generate_default_cfgs(
    {
        "van_b0.in1k": _cfg(_HUB.format("Tiny", "tiny_754")),
        "van_b1.in1k": _cfg(_HUB.format("Small", "small_811")),
        "van_b2.in1k": _cfg(_HUB.format("Base", "base_828")),
        "van_b3.in1k": _cfg(_HUB.format("Large", "large_839")),
        "van_b4.untrained": _cfg(),
        "van_b5.untrained": _cfg(),
        "van_b6.untrained": _cfg(),
    }
)


def _create_van(variant: str, pretrained: bool, settings: dict[str, Any], given: dict[str, Any]) -> nn.Module:
    return build_variant(VAN, variant, pretrained, checkpoint_filter_fn, settings, given)


@register_model
def van_b0(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B0 (tiny): 4.1 M parameters."""
    settings = {"dims": (32, 64, 160, 256), "depths": (3, 3, 5, 2), "drop_path_rate": 0.1}
    return _create_van("van_b0", pretrained, settings, kwargs)


@register_model
def van_b1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B1 (small): 13.9 M parameters."""
    settings = {"dims": (64, 128, 320, 512), "depths": (2, 2, 4, 2), "drop_path_rate": 0.1}
    return _create_van("van_b1", pretrained, settings, kwargs)


@register_model
def van_b2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B2 (base): 26.6 M parameters."""
    settings = {"dims": (64, 128, 320, 512), "depths": (3, 3, 12, 3), "drop_path_rate": 0.1}
    return _create_van("van_b2", pretrained, settings, kwargs)


@register_model
def van_b3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B3 (large): 44.8 M parameters."""
    settings = {"dims": (64, 128, 320, 512), "depths": (3, 5, 27, 3), "drop_path_rate": 0.2}
    return _create_van("van_b3", pretrained, settings, kwargs)


@register_model
def van_b4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B4: 60.3 M parameters, no published ImageNet-1K weights."""
    settings = {"dims": (64, 128, 320, 512), "depths": (3, 6, 40, 3), "drop_path_rate": 0.2}
    return _create_van("van_b4", pretrained, settings, kwargs)


@register_model
def van_b5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B5: 90.0 M parameters, no published ImageNet-1K weights."""
    settings = {"dims": (96, 192, 480, 768), "depths": (3, 3, 24, 3), "drop_path_rate": 0.2}
    return _create_van("van_b5", pretrained, settings, kwargs)


@register_model
def van_b6(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VAN-B6: 199.8 M parameters, no published ImageNet-1K weights."""
    settings = {"dims": (96, 192, 384, 768), "depths": (6, 6, 90, 6), "drop_path_rate": 0.3}
    return _create_van("van_b6", pretrained, settings, kwargs)
