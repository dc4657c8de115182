"""ViT hosts (timm `VisionTransformer`: vit_*, deit*, deit3_*, dinov2, clip, siglip) with another attention.

A ViT holds its patches as a sequence, (batch, prefix + height * width, dim); our blocks need the grid back.
timm's `embed_layer` argument lets the patch embedding give a `Grid` how many patches high and wide the
image is, and timm's `block_fn` argument lets every block read it. With a fixed image size (timm's
default) the grid is set once, at construction and by `set_input_size`, and nothing is written at run time.

With `dynamic_img_size=True` each forward pass writes the grid: then one thread may use the model at a time,
and with gradient checkpointing all forward passes before one backward pass must share an image size.

**Prefix tokens** (class, register, distillation) go on exchanging with all tokens:

1. They attend to every token with ordinary softmax attention, under timm's names `attn.qkv` and `attn.proj`,
   so that a host's weights land there.
2. Patches read them. A block with `takes_context` gets them as `context`. For any other mixer the patches'
   own queries look up the prefix with the same `qkv` and `proj`, scaled per channel by `gamma`, which starts
   at zero.
3. A gate follows the host's whole softmax attention and leaves the prefix alone.

Without prefix tokens none of this exists: the block stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ..attention import build_attention
from .choices import is_mixer

__all__ = ["GatedAttention", "Grid", "GridBlock", "GridPatchEmbed", "PatchMixer", "PrefixMixer", "build_vit"]


@dataclass
class Grid:
    """How the patches of one model lie; its embedding writes, its blocks read.

    Attributes:
        prefix: tokens before the patches.
        fixed: patches high and wide, from construction or `set_input_size`.
        live: the same of the image under way; only where its size may vary. It may hold the symbols of an
            export and is never copied or pickled.
    """

    prefix: int
    fixed: tuple[int, int] | None = None
    live: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"live": None}

    def split(
        self, tokens: Float[Tensor, "batch tokens dim"]
    ) -> tuple[Float[Tensor, "batch prefix dim"], Float[Tensor, "batch height width dim"]]:
        """The prefix tokens, and the patches as an image.

        Raises:
            ValueError: there are more or fewer tokens than the grid holds.
        """
        height, width = self.live or self.fixed or (0, 0)
        if tokens.shape[1] != self.prefix + height * width:
            raise ValueError(
                f"{tokens.shape[1]} tokens are not {self.prefix} of prefix and {height} x {width} patches. "
                "Were tokens dropped, or did two threads or two image sizes share this model at once?"
            )
        return tokens[:, : self.prefix], tokens[:, self.prefix :].unflatten(1, (height, width))


class GridPatchEmbed(PatchEmbed):
    """timm's patch embedding, which also keeps `grid` up to date."""

    def __init__(self, *args: Any, grid: Grid, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grid = grid
        grid.fixed = self.grid_size

    def set_input_size(self, *args: Any, **kwargs: Any) -> None:
        """Change the image or patch size, as timm does."""
        super().set_input_size(*args, **kwargs)
        self.grid.fixed = self.grid_size

    def forward(self, x: Float[Tensor, "batch channels height_px width_px"]) -> Float[Tensor, "batch *patches dim"]:
        """Embed the patches."""
        if not self.strict_img_size:
            height_px, width_px = x.shape[-2:]
            self.grid.live = self.dynamic_feat_size((height_px, width_px))
        return super().forward(x)


class PatchMixer(nn.Module):
    """A mixer in place of the host's attention, where there are no prefix tokens.

    Args:
        attention: the block.
        grid: how the patches lie.
        proj_drop: dropout of the outcome in training, 0-1 (the host's `proj_drop_rate`).
    """

    def __init__(self, attention: nn.Module, grid: Grid, proj_drop: float = 0.0) -> None:
        super().__init__()
        self.attention = attention
        self.grid = grid
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """Mix the patches."""
        _refuse_mask(attn_mask, is_causal)
        _, patches = self.grid.split(x)
        return self.proj_drop(self.attention(patches).flatten(1, 2))


class PrefixMixer(Attention):
    """A mixer for the patches and softmax attention for the prefix tokens, which read each other.

    Args:
        dim: width of a token.
        attention: the block.
        grid: how the tokens lie.
        softmax: the arguments of timm's `Attention`.
    """

    def __init__(self, dim: int, *, attention: nn.Module, grid: Grid, **softmax: Any) -> None:
        super().__init__(dim, **softmax)
        self.attention = attention
        self.grid = grid
        takes_context = getattr(attention, "takes_context", False)
        self.gamma = None if takes_context else nn.Parameter(torch.zeros_like(self.qkv.weight[0]))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """Mix the patches, and let the prefix attend to everything."""
        _refuse_mask(attn_mask, is_causal)
        first = self.grid.prefix
        prefix, patches = self.grid.split(x)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query), self.k_norm(key)
        prefix_out = self._softmax(query[:, :, :first], key, value)
        if self.gamma is None:
            patches_out = self.attention(patches, context=prefix).flatten(1, 2)
        else:
            lookup = self._softmax(query[:, :, first:], key[:, :, :first], value[:, :, :first])
            patches_out = self.attention(patches).flatten(1, 2) + self.gamma * lookup
        return torch.cat([prefix_out, self.proj_drop(patches_out)], dim=1)

    def _softmax(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
    ) -> Float[Tensor, "batch queries dim"]:
        drop_rate = self.attn_drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=drop_rate)
        return self.proj(self.norm(mixed.transpose(1, 2).flatten(2)))


class GatedAttention(Attention):
    """The host's softmax attention over all tokens, and then a gate on the patches.

    Args:
        dim: width of a token.
        attention: the gate.
        grid: how the tokens lie.
        softmax: the arguments of timm's `Attention`.
    """

    def __init__(self, dim: int, *, attention: nn.Module, grid: Grid, **softmax: Any) -> None:
        super().__init__(dim, **softmax)
        self.attention = attention
        self.grid = grid

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend, then weigh the patches."""
        prefix, patches = self.grid.split(super().forward(x, attn_mask, is_causal))
        return torch.cat([prefix, self.attention(patches).flatten(1, 2)], dim=1)


class GridBlock(Block):
    """timm's transformer block with another attention; timm calls it as `block_fn`, by keyword.

    Args:
        grid: how the tokens lie.
        attention: name of the block, as in `build_attention`.
        attention_options: keyword arguments of the block.
        host: what timm gives a `Block`.
    """

    def __init__(
        self, *, grid: Grid, attention: str, attention_options: Mapping[str, Any] | None = None, **host: Any
    ) -> None:
        # nn.Identity takes the arguments of any attention and makes nothing; ours follows.
        super().__init__(**(host | {"attn_layer": nn.Identity}))
        dim, heads, device, dtype = (host[key] for key in ("dim", "num_heads", "device", "dtype"))
        block = build_attention(attention, dim, attention_options, num_heads=heads).to(device=device, dtype=dtype)
        if is_mixer(attention) and not grid.prefix:
            self.attn = PatchMixer(block, grid, host["proj_drop"])
            return
        same = ("num_heads", "qkv_bias", "qk_norm", "proj_bias", "attn_drop", "proj_drop", "norm_layer")
        softmax = {key: host[key] for key in (*same, "device", "dtype")} | {"scale_norm": host["scale_attn_norm"]}
        wrapper = PrefixMixer if is_mixer(attention) else GatedAttention
        self.attn = wrapper(dim, attention=block, grid=grid, **softmax)


def build_vit(
    entry: Callable[..., nn.Module],
    plain: nn.Module,
    attention: str,
    options: Mapping[str, Any] | None = None,
    stages: Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a timm ViT with another attention in all of its blocks.

    `attention="softmax"` is the host itself, unchanged.

    Args:
        entry: timm's function for the host.
        plain: the host as timm builds it from `kwargs`; it may be on the meta device.
        attention: name of the block, as in `build_attention`.
        options: keyword arguments of the block.
        stages: only None; a ViT has no stages.
        kwargs: the host's own arguments.

    Raises:
        ValueError: the host's blocks or patches are of an unsupported type, or tokens would be dropped in training.
    """
    other = "use vit_small_patch16_224 or deit3_small_patch16_224"
    if stages is not None:
        raise ValueError("attention_stages is for hosts with stages (poolformerv2_s12, resnet50, ...); a ViT has none")
    if not isinstance(plain, VisionTransformer):
        raise ValueError(
            f"the host became a {type(plain).__name__} (use_naflex=True, or TIMM_USE_NAFLEXVIT is set); "
            f"its patches lie on no fixed grid. Without that, {other}"
        )
    odd = {type(block).__name__ for block in plain.blocks if type(block) is not Block}
    odd |= {type(block.attn).__name__ for block in plain.blocks if type(block) is Block} - {"Attention"}
    if odd:
        raise ValueError(f"the host's layers are of an unsupported type ({', '.join(sorted(odd))}); {other}")
    if attention == "softmax":
        if options:
            raise ValueError(
                "softmax on a ViT is the host's own attention and has no attention_options; "
                "num_heads, qkv_bias and attn_drop_rate are arguments of the host"
            )
        return entry(**kwargs)
    if type(plain.patch_embed) is not PatchEmbed:
        raise ValueError(
            f"the host's patches come from a {type(plain.patch_embed).__name__}, which has no grid; {other}"
        )
    if not isinstance(plain.patch_drop, nn.Identity):
        raise ValueError("patch_drop_rate > 0 leaves gaps in the grid of patches; use drop_path_rate instead")
    if plain.fix_init and is_mixer(attention) and not plain.num_prefix_tokens:
        raise ValueError("fix_init=True rescales the host's own attention, which is not there; leave it out")
    grid = Grid(prefix=plain.num_prefix_tokens)
    return entry(
        embed_layer=partial(GridPatchEmbed, grid=grid),
        block_fn=partial(GridBlock, grid=grid, attention=attention, attention_options=options),
        **kwargs,
    )


def _refuse_mask(attn_mask: Tensor | None, is_causal: bool) -> None:
    if attn_mask is not None or is_causal:
        raise ValueError("this attention does not accept attn_mask or is_causal; only softmax and gates do")
