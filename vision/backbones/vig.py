"""ViG, a plain vision transformer of gated linear attention (the Vision GNN of the same name is another network).

Source: Liao et al. 2024, arXiv:2405.18425, table 1; hustvl/ViG@dfb9d32, classification/models/vig.py, whose
parameter names are kept. The hierarchical ViG-H is in `vig_h`. timm's `VisionTransformer` is the frame. Unlike
there, images of any size and shape are taken, and inference and training compute the same: what the authors
compute in inference, see `VigAttention`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, trunc_normal_
from timm.models import generate_default_cfgs, register_model
from timm.models._input import update_model_input_size
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..attention.vig import VigAttention
from .pyramid import build_variant
from .van import ChannelNorm

__all__ = ["KEYS", "PAPER", "TOP1", "Block", "Mlp", "PatchEmbed", "ViG", "checkpoint_filter_fn", "resize_positions"]

PAPER = "arXiv:2405.18425"

#: A name that only files of this family have.
KEYS = (r"^blocks\.\d+\.attn\.gk_proj\.",)

#: Published ImageNet-1K top-1 accuracy (%) at 224 x 224.
TOP1: dict[str, float] = {"vig_tiny.in1k": 77.2, "vig_small.in1k": 81.7, "vig_base.in1k": 82.6}


class Mlp(nn.Module):
    """SwiGLU: SiLU(a) * b between two projections without bias.

    Args:
        dim: channels.
        multiple: the hidden width is 8/3 of `dim`, rounded up to a multiple of this.
    """

    def __init__(self, dim: int, *, multiple: int = 256) -> None:
        super().__init__()
        hidden = multiple * -(-(dim * 8 // 3) // multiple)
        self.gate_proj = nn.Linear(dim, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Transform every position."""
        gate, hidden = self.gate_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * hidden)


class Block(nn.Module):
    """Attention and MLP, each after an RMSNorm, and added.

    Args:
        dim: channels.
        num_heads: number of heads.
        init_values: where the scales of both branches start; without it there are none, as published.
        drop_path_rate: stochastic depth rate, the probability of dropping a branch in training, 0-1.
        attention: options of `VigAttention`.

    Example:
        >>> Block(16, num_heads=2)(torch.rand(2, 13, 17, 16)).shape
        torch.Size([2, 13, 17, 16])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        init_values: float | None = None,
        drop_path_rate: float = 0.0,
        **attention: Any,
    ) -> None:
        super().__init__()
        self.gamma1 = self.gamma2 = None
        if init_values is not None:
            self.gamma1 = nn.Parameter(torch.full((dim,), float(init_values)))
            self.gamma2 = nn.Parameter(torch.full((dim,), float(init_values)))
        self.attn_norm = nn.RMSNorm(dim, eps=1e-6)
        self.attn = VigAttention(dim, num_heads=num_heads, **attention)
        self.mlp_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Mix positions, then channels."""
        mixed = self.attn(self.attn_norm(x))
        x = x + self.drop_path(mixed if self.gamma1 is None else self.gamma1 * mixed)
        mixed = self.mlp(self.mlp_norm(x))
        return x + self.drop_path(mixed if self.gamma2 is None else self.gamma2 * mixed)


class PatchEmbed(nn.Module):
    """Two strided convolutions, each with a norm over the channels, that leave one token a patch.

    A side of 224 gives 14 tokens; others give floor((floor((side - 7) / 8) + 2) / 2), for patches of 16.

    Args:
        img_size: usual height and width in pixels; any other is taken too.
        patch_size: side of a patch in pixels, a multiple of 2.
        in_chans: channels in.
        embed_dim: channels out, even.
        unused: what else timm's `VisionTransformer` gives.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 192,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.patch_size = _pair(patch_size)
        step = self.patch_size[0] // 2
        if self.patch_size != (2 * step, 2 * step) or step < 1:
            raise ValueError(f"patch_size {patch_size} is not an even square, such as 16; ViG embeds in two steps")
        self.set_input_size(img_size)
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, embed_dim // 2, step + 1, stride=step, padding=1),
            ChannelNorm(embed_dim // 2),
            nn.SiLU(),
            nn.Conv2d(embed_dim // 2, embed_dim, 3, stride=2, padding=1),
            ChannelNorm(embed_dim),
        )

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Set the usual size, and with it the grid of the position embedding.

        Raises:
            ValueError: another patch size; it is built into the convolutions.
        """
        if patch_size is not None and _pair(patch_size) != self.patch_size:
            raise ValueError(f"the patches of a ViG stay {self.patch_size[0]} pixels wide; build it with patch_size")
        if img_size is not None:
            self.img_size = _pair(img_size)
            self.grid_size = (self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1])
            self.num_patches = self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels a token."""
        return self.patch_size[0] if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Tokens high and wide that an image of this height and width gives."""
        step = self.patch_size[0] // 2
        height, width = (((side + 1 - step) // step + 2) // 2 for side in img_size)
        return height, width

    def forward(self, x: Float[Tensor, "batch in_chans h w"]) -> Float[Tensor, "batch height width dim"]:
        """Embed the patches."""
        return self.proj(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


class ViG(VisionTransformer):
    """Vision transformer of gated linear attention; tokens lie on a grid (batch, height, width, dim) inside.

    Args:
        img_size: usual height and width in pixels, which sets the grid of the position embedding.
        patch_size: side of a patch in pixels, even.
        in_chans: channels of the image.
        num_classes: classes; 0 for no classifier.
        global_pool: timm's pooling over the tokens: avg, avgmax, max, or "" with no classes.
        embed_dim: width of a token.
        depth: blocks.
        num_heads: number of heads.
        conv_act: whether SiLU follows the convolution of the attention.
        conv_bias: whether it has a bias.
        out_act: whether SiLU comes before the last projection of the attention.
        divisor: of the sum of both ways of the attention. The published accuracies are of 4, in training the
            authors have 2; here it is one number for both.
        init_values: where the scales of the branches start; without it there are none.
        drop_rate: dropout before the classifier, 0-1.
        pos_drop_rate: dropout of the embedded tokens, 0-1.
        drop_path_rate: stochastic depth rate of the last block, 0-1; it increases linearly from 0.
        device: device of the parameters.
        dtype: type of the parameters.

    Example:
        >>> model = ViG(num_classes=10, embed_dim=16, depth=1, num_heads=2)
        >>> model(torch.rand(1, 3, 80, 112)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Any = "avg",
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        conv_act: bool = False,
        conv_bias: bool = False,
        out_act: bool = False,
        divisor: float | int = 4,
        init_values: float | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        def block(*, dim: int, num_heads: int, drop_path: float, **unused: Any) -> Block:
            return Block(
                dim,
                num_heads=num_heads,
                init_values=init_values,
                drop_path_rate=drop_path,
                conv_act=conv_act,
                conv_bias=conv_bias,
                out_act=out_act,
                divisor=divisor,
            )

        as_timm_calls_it: Any = block
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            class_token=False,
            fc_norm=False,
            dynamic_img_size=True,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            drop_path_rate=drop_path_rate,
            weight_init="skip",
            embed_layer=PatchEmbed,
            block_fn=as_timm_calls_it,
        )
        self.norm = nn.RMSNorm(embed_dim, eps=1e-6)
        self.init_weights()
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Normal with std 0.02 and zero biases; `VigAttention` sets its own. Both arguments are without effect."""
        trunc_normal_(self._positions(), std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, VigAttention):
                module.init_weights()

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Resize the position embedding to another usual size; see `PatchEmbed.set_input_size`."""
        before = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size, patch_size)
        resized = resize_positions(self._positions().detach(), before, self.patch_embed.grid_size)
        self.pos_embed = nn.Parameter(resized, requires_grad=self._positions().requires_grad)
        update_model_input_size(self, self.patch_embed.img_size)

    def _positions(self) -> nn.Parameter:
        assert self.pos_embed is not None
        return self.pos_embed

    def _pos_embed(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        height, width = x.shape[1:3]
        positions = resize_positions(self._positions(), self.patch_embed.grid_size, (height, width))
        return self.pos_drop(x + positions.unflatten(1, (height, width)))

    def forward_features(
        self, x: Float[Tensor, "batch in_chans h w"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """The tokens after the last block, normalised.

        Raises:
            ValueError: a mask is given; this attention has no weights to mask.
        """
        _refuse_mask(attn_mask, is_causal)
        return super().forward_features(x).flatten(1, 2)

    def forward_intermediates(
        self,
        x: Float[Tensor, "batch in_chans h w"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """The maps after several blocks; arguments and results as in timm's `VisionTransformer`.

        Raises:
            ValueError: a mask is given, or another `output_fmt` than NCHW and NLC.
        """
        _refuse_mask(attn_mask, is_causal)
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"ViG gives maps as NCHW or NLC, not {output_fmt!r}")
        found: Any = super().forward_intermediates(
            x, indices, norm=norm, stop_early=stop_early, intermediates_only=intermediates_only, output_dict=True
        )
        if output_fmt == "NLC":
            found["image_intermediates"] = [one.flatten(2).mT for one in found["image_intermediates"]]
        if not intermediates_only:
            found["image_features"] = found["image_features"].flatten(1, 2)
        if output_dict:
            return found
        maps = found["image_intermediates"]
        return maps if intermediates_only else (found["image_features"], maps)


def resize_positions(
    positions: Float[Tensor, "1 tokens dim"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "1 resized dim"]:
    """A position embedding for another grid: bicubic in float32 without antialiasing, as the authors do."""
    if old == new:
        return positions
    grid = positions.float().unflatten(1, old).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Bring a published file to our names, which are the authors'.

    Args:
        state_dict: the authors' file (`{"model": ...}` or its inside), or a file of ours.
        model: the ViG that will load it: its position embedding sets the grid, and 1 x 1 convolutions become
            linear layers where it has those.
    """
    for nested in ("state_dict", "model"):
        state_dict = state_dict.get(nested, state_dict)
    own = model.state_dict()
    found = {}
    for name, tensor in state_dict.items():
        name = name.removeprefix("module.")
        if name in own and tensor.ndim == 4 and own[name].ndim == 2:
            tensor = tensor.flatten(1)
        if name == "pos_embed" and isinstance(model, ViG) and tensor.shape[1:] != own[name].shape[1:]:
            side = math.isqrt(tensor.shape[1])
            tensor = resize_positions(tensor, (side, side), model.patch_embed.grid_size)
        found[name] = tensor
    return found


def _refuse_mask(attn_mask: Tensor | None, is_causal: bool) -> None:
    if attn_mask is not None or is_causal:
        raise ValueError("ViG does not accept attn_mask or is_causal: its memories have no weights to mask")


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _cfg(file: str) -> dict[str, Any]:
    """Preprocessing of the authors: centre crop of 224 from 256, bicubic."""
    return {
        "url": f"https://huggingface.co/hustvl/ViG/resolve/main/{file}",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (14, 14),
        "crop_pct": 224 / 256,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj.0",
        "classifier": "head",
        "paper_ids": PAPER,
        "paper_name": "ViG: Linear-complexity Visual Sequence Learning with Gated Linear Attention",
        "origin_url": "https://github.com/hustvl/ViG",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {
        "vig_tiny.in1k": _cfg("vig_t_77p2acc.pth"),
        "vig_small.in1k": _cfg("vig_s_81p7acc.pth"),
        "vig_base.in1k": _cfg("vig_b_82p6acc.pth"),
    }
)


def _create_vig(variant: str, pretrained: bool, settings: dict[str, Any], given: dict[str, Any]) -> nn.Module:
    return build_variant(ViG, variant, pretrained, checkpoint_filter_fn, settings, given, out_indices=3)


@register_model
def vig_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-T: 5.8 M parameters; the only one with SiLU after the convolution and before the last projection."""
    settings = {"embed_dim": 192, "num_heads": 3, "conv_act": True, "out_act": True}
    return _create_vig("vig_tiny", pretrained, settings, kwargs)


@register_model
def vig_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-S: 22.6 M parameters."""
    return _create_vig("vig_small", pretrained, {"embed_dim": 384, "num_heads": 6, "drop_path_rate": 0.2}, kwargs)


@register_model
def vig_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-B: 89.0 M parameters."""
    return _create_vig("vig_base", pretrained, {"embed_dim": 768, "num_heads": 12, "drop_path_rate": 0.5}, kwargs)
