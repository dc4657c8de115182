"""Sparsifiner on DeiT and LV-ViT: vision transformers whose attention keeps few connections, and then few tokens.

Source: Wei et al. 2023, arXiv:2303.13755; lim142857/Sparsifiner@9a11e26 (src/models/sparsifiner.py and
sparsifiner_lvvit.py), whose parameter names are kept. No trained Sparsifiner is published: `pretrained=True`
loads the dense network that training starts from, and leaves the predictors fresh. How they are trained is in
`regard.vision.sparsifiner_training`.

**Dropping tokens** has three modes, `token_mode`:

- `"reference"`: as the authors do it. Nothing is removed; dropped tokens are set to zero and cannot be chosen.
  Since the class token attends to everything, each of them still takes exp(0) of its softmax.
- `"removed"`: the same numbers, but the tokens are gone: all that is left of them is that share.
- `"clean"`: they are gone and take no share. This is another function than the authors', so that weights
  trained in one mode should be used in that mode; it is what one would write down from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import PatchEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from timm.models.vision_transformer import Block, VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as filter_vit
from torch import Tensor, nn

from ..attention.sparsifiner import Connections, MaskPredictor, resize_table

__all__ = [
    "KEYS",
    "PAPER",
    "TOP1",
    "Left",
    "Sparsifiner",
    "SparsifinerBlock",
    "SparsifinerTokens",
    "checkpoint_filter_fn",
]

PAPER = "arXiv:2303.13755"

#: A name that only files of this family have; the dense networks it starts from are DeiT and LV-ViT.
KEYS = (r"\.attn\.mask_predictor\.",)

#: No trained weights are published.
TOP1: dict[str, float] = {}


class Left(NamedTuple):
    """The tokens that are left after some were dropped.

    Attributes:
        patches: how many patches are left in every image.
        dropped: patches dropped that take a share of the class token's softmax though they are not there.
        valid: of all tokens, those left; None where the others are gone.
        places: of the tokens there, their numbers among all; None where all are there.
    """

    patches: int
    dropped: int = 0
    valid: Bool[Tensor, "batch all_tokens"] | None = None
    places: Int[Tensor, "batch tokens"] | None = None


class SparsifinerTokens(nn.Module):
    """Sparse attention over a sequence: prefix tokens attend to everything, patches to what is predicted.

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: heads.
        tokens: tokens of a picture, the prefix included.
        prefix: first tokens, which are no patches.
        qkv_bias: whether queries, keys and values have a bias.
        predictor: arguments of `MaskPredictor`.

    Raises:
        ValueError: `dim` does not divide by `num_heads`.

    Example:
        >>> SparsifinerTokens(48, num_heads=3, tokens=50)(torch.rand(2, 50, 48)).shape
        torch.Size([2, 50, 48])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        tokens: int = 197,
        prefix: int = 1,
        qkv_bias: bool = True,
        predictor: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        self.num_heads, self.prefix = num_heads, prefix
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.mask_predictor = MaskPredictor(tokens, dim // num_heads, **(predictor or {}))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend."""
        return self.attend(x, left)[0]

    def attend(
        self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch prefix tokens"]]:
        """Attend, and say what the prefix tokens look at, as the mean over heads."""
        (query, key, value), options = self._prepare(x, left)
        first, dropped = self.prefix, left.dropped if left else 0
        logits = (query[:, :, :first] * query.shape[-1] ** -0.5) @ key.mT  # batch heads prefix tokens
        if dropped:  # their logits are 0, and so are their values
            share = logits.new_full((*logits.shape[:-1], 1), math.log(dropped))
            weights = torch.cat([logits, share], dim=-1).softmax(dim=-1)[..., :-1]
        else:
            weights = logits.softmax(dim=-1)
        mixed = torch.cat([weights @ value, self.mask_predictor(query[:, :, first:], key, value, **options)], dim=2)
        return self.proj(mixed.transpose(1, 2).flatten(2)), weights.mean(dim=1)

    def connections(self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None) -> Connections:
        """What `forward` keeps of the patches' rows; the prefix tokens' rows, which are full, are left out."""
        (query, key, _), options = self._prepare(x, left)
        return self.mask_predictor.connections(query[:, :, self.prefix :], key, **options)

    def _prepare(self, x: Tensor, left: Left | None) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if left is None:
            return (query, key, value), {}
        predictor = self.mask_predictor
        options: dict[str, Any] = {"budget": min(predictor.budget(len(predictor.proj_n)), left.patches)}
        if left.places is not None:
            options["tables"] = predictor.proj_n[left.places], predictor.proj_back_n[left.places]
        if left.valid is not None:
            options["valid"] = left.valid
            query, key, value = (part * left.valid[:, None, :, None] for part in (query, key, value))
        return (query, key, value), options


class SparsifinerBlock(Block):
    """timm's block with sparse attention, whose branches may be divided by a number (LV-ViT).

    Args:
        dim: width of a token.
        num_heads: heads.
        qkv_bias: whether queries, keys and values have a bias.
        tokens: see `SparsifinerTokens`.
        prefix: see `SparsifinerTokens`.
        predictor: see `SparsifinerTokens`.
        skip_lam: what both branches are divided by.
        timm: the other arguments of timm's `Block`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        tokens: int = 197,
        prefix: int = 1,
        predictor: Mapping[str, Any] | None = None,
        skip_lam: float | int = 1,
        qkv_bias: bool = True,
        **timm: Any,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, **timm)
        like = next(self.parameters())
        self.attn = SparsifinerTokens(
            dim, num_heads=num_heads, tokens=tokens, prefix=prefix, qkv_bias=qkv_bias, predictor=predictor
        ).to(device=like.device, dtype=like.dtype)
        self.skip_lam = skip_lam

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch prefix tokens"]]:
        """Mix tokens, then channels; also says what the prefix tokens looked at."""
        mixed, seen = self.attn.attend(self.norm1(x), left)  # type: ignore[operator]
        x = x + self.drop_path1(self.ls1(mixed)) / self.skip_lam
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))) / self.skip_lam, seen


class Sparsifiner(VisionTransformer):
    """A vision transformer with sparse attention, which may drop tokens on the way.

    Feature maps of dropped tokens are zero (and the bias of the last norm after it), whatever `token_mode` is.

    Args:
        img_size: height and width of the pictures, or one number; `set_input_size` changes it.
        patch_size: the same of a patch.
        predictor: arguments of `MaskPredictor`, e.g. `{"keep_rate": 0.25}`.
        keep_rates: `keep_rate` of every block, where they differ.
        token_keep_rates: for every block the share of all patches that is left after it, 0-1, never rising. One
            number r is the paper's r, r^2 and r^3 from a quarter, half and three quarters of the depth on.
            None keeps all.
        token_mode: how they are dropped; see the head of this module.
        skip_lam: what the residual branches are divided by.
        aux_head: whether every patch is classified too, as in LV-ViT. At inference half of its largest logits
            are added.
        class_token: see timm.
        reg_tokens: see timm.
        timm: the other arguments of timm's `VisionTransformer`.

    Raises:
        ValueError: rates that do not suit the depth or rise, tokens to drop without a class token or with
            `aux_head`, or an argument of timm's that does not go with sparse attention.

    Example:
        >>> model = Sparsifiner(img_size=64, embed_dim=48, depth=2, num_heads=3, token_keep_rates=[0.5, 0.5])
        >>> model(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 1000])
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        *,
        depth: int = 12,
        predictor: Mapping[str, Any] | None = None,
        keep_rates: Sequence[float | int] | None = None,
        token_keep_rates: Sequence[float | int] | float | None = None,
        token_mode: Literal["reference", "removed", "clean"] = "reference",
        skip_lam: float | int = 1,
        aux_head: bool = False,
        class_token: bool = True,
        reg_tokens: int = 0,
        **timm: Any,
    ) -> None:
        for name in ("dynamic_img_size", "patch_drop_rate", "qk_norm", "attn_drop_rate", "scale_attn_norm"):
            if timm.get(name):
                raise ValueError(f"{name} does not go with Sparsifiner's attention; leave it out")
        if isinstance(token_keep_rates, float | int):
            token_keep_rates = [token_keep_rates ** (4 * block // depth) for block in range(depth)]
        for name, rates in (("keep_rates", keep_rates), ("token_keep_rates", token_keep_rates)):
            if rates is not None and (len(rates) != depth or not all(0 < rate <= 1 for rate in rates)):
                raise ValueError(f"{name} is {list(rates)}; {depth} shares above 0 and up to 1 would do")
        if token_keep_rates and (aux_head or not class_token):
            raise ValueError("dropping tokens needs a class token and no aux_head; leave token_keep_rates out")
        if token_keep_rates and list(token_keep_rates) != sorted(token_keep_rates, reverse=True):
            raise ValueError(f"token_keep_rates is {list(token_keep_rates)}; what was dropped does not come back")
        if token_mode not in ("reference", "removed", "clean"):
            raise ValueError(f"token_mode is {token_mode!r}; reference, removed or clean would do")
        sizes = [(size, size) if isinstance(size, int) else (size[0], size[1]) for size in (img_size, patch_size)]
        prefix = class_token + reg_tokens
        tokens = prefix + (sizes[0][0] // sizes[1][0]) * (sizes[0][1] // sizes[1][1])
        blocks = iter(range(depth))

        def block(**arguments: Any) -> SparsifinerBlock:
            own = dict(predictor or {})
            if keep_rates is not None:
                own["keep_rate"] = keep_rates[next(blocks)]
            return SparsifinerBlock(**arguments, tokens=tokens, prefix=prefix, predictor=own, skip_lam=skip_lam)

        super().__init__(
            img_size=sizes[0],
            patch_size=sizes[1],
            depth=depth,
            class_token=class_token,
            reg_tokens=reg_tokens,
            block_fn=block,  # type: ignore[arg-type]  # it makes modules, as a class does
            **timm,
        )
        self.token_keep_rates = None if token_keep_rates is None else list(token_keep_rates)
        self.token_mode = token_mode
        self.aux_head: nn.Module | None = None
        self.has_aux_head = aux_head
        if aux_head:
            self.reset_classifier(self.num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in, and another pooling if one is given."""
        super().reset_classifier(num_classes, global_pool)
        if self.has_aux_head:
            like = next(self.parameters())
            aux = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
            self.aux_head = aux.to(device=like.device, dtype=like.dtype)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the picture or patch size; the predictors' tables are resized."""
        old = self.patch_embed.grid_size
        super().set_input_size(img_size, patch_size)
        new = self.patch_embed.grid_size
        for predictor in (module for module in self.modules() if isinstance(module, MaskPredictor)):
            predictor.resize(old, new, prefix=self.num_prefix_tokens)

    def run_blocks(
        self, x: Float[Tensor, "batch channels height_px width_px"], last: int | None = None
    ) -> tuple[list[Float[Tensor, "batch tokens dim"]], Bool[Tensor, "batch tokens"] | None]:
        """All tokens after each block, up to the block `last`, and which of them are left in the end.

        Dropped tokens are zero. Without any, the second is None.
        """
        x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))
        total, prefix = x.shape[1], self.num_prefix_tokens
        left: Left | None = None
        outs = []
        for index, block in enumerate(self.blocks[: None if last is None else last + 1]):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x, seen = checkpoint(block, x, left)
            else:
                x, seen = block(x, left)
            if self.token_keep_rates is not None:
                count = math.ceil(self.token_keep_rates[index] * (total - prefix))
                if count < (left.patches if left else total - prefix):
                    x, left = self._drop(x, left, seen[:, 0, prefix:], count, total)
                elif left is not None and left.valid is not None:
                    x = x * left.valid.unsqueeze(-1)
            outs.append(_whole(x, left, total))
        return outs, _which(left, total)

    def _drop(
        self, x: Tensor, left: Left | None, seen: Float[Tensor, "batch patches"], count: int, total: int
    ) -> tuple[Tensor, Left]:
        """Keep the patches that the class token sees most."""
        prefix, batch = self.num_prefix_tokens, x.shape[0]
        if left is not None and left.valid is not None:
            seen = seen.masked_fill(~left.valid[:, prefix:], -torch.inf)
        kept = prefix + seen.topk(count).indices.sort(dim=-1).values  # batch count, among those there
        kept = torch.cat([torch.arange(prefix, device=x.device).expand(batch, -1), kept], dim=1)
        if self.token_mode == "reference":
            valid = torch.zeros(batch, total, dtype=torch.bool, device=x.device).scatter_(1, kept, True)
            return x * valid.unsqueeze(-1), Left(count, valid=valid)
        x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        places = kept if left is None or left.places is None else left.places.gather(1, kept)
        dropped = total - prefix - count if self.token_mode == "removed" else 0
        return x, Left(count, dropped, places=places)

    def forward_features(  # type: ignore[override]
        self, x: Float[Tensor, "batch channels height_px width_px"], attn_mask: None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """All tokens after the last block, normalised.

        Raises:
            ValueError: a mask is given.
        """
        if attn_mask is not None or is_causal:
            raise ValueError("Sparsifiner predicts its masks and takes no attn_mask and is_causal")
        return self.norm(self.run_blocks(x)[0][-1])

    def forward_intermediates(  # type: ignore[override]
        self,
        x: Float[Tensor, "batch channels height_px width_px"],
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The tokens after several blocks, as timm gives them.

        Args:
            x: images.
            indices: blocks from 0; a number takes that many last ones, None all.
            return_prefix_tokens: whether each comes as a pair (patches, prefix tokens).
            norm: whether the last norm is applied to each.
            stop_early: whether to leave out blocks after the last one asked for.
            output_fmt: NCHW or NLC.
            intermediates_only: whether to return the list alone, without the last tokens.

        Raises:
            ValueError: another `output_fmt`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt is {output_fmt!r}; NCHW or NLC would do")
        chosen, last = feature_take_indices(len(self.blocks), _listed(indices))
        tokens, _ = self.run_blocks(x, last if stop_early else None)
        found = []
        for index in sorted(chosen):
            one = self.norm(tokens[index]) if norm else tokens[index]
            prefix, patches = one[:, : self.num_prefix_tokens], one[:, self.num_prefix_tokens :]
            if output_fmt == "NCHW":
                patches = patches.unflatten(1, self.patch_embed.grid_size).permute(0, 3, 1, 2).contiguous()
            found.append((patches, prefix) if return_prefix_tokens else patches)
        return found if intermediates_only else (self.norm(tokens[-1]), found)

    def forward_head(
        self, x: Float[Tensor, "batch tokens dim"], pre_logits: bool = False
    ) -> Float[Tensor, "batch *out"]:
        """Pool and classify; `pre_logits` stops before the classifier."""
        logits = super().forward_head(x, pre_logits=pre_logits)
        if self.aux_head is None or pre_logits or self.training or self.num_classes < 1:
            return logits
        return logits + 0.5 * self.aux_head(x[:, self.num_prefix_tokens :]).amax(dim=1)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch channels height_px width_px"]
    ) -> Float[Tensor, "batch *out"]:
        """Logits of images."""
        return self.forward_head(self.forward_features(x))


class ConvPatchEmbed(PatchEmbed):
    """LV-ViT's stem: three convolutions at half size, and patches of 8 x 8 from what they give.

    Args:
        img_size: height and width of the pictures.
        patch_size: only 16.
        in_chans: channels of the pictures.
        embed_dim: width of a token.
        width: channels of the convolutions.
        timm: the other arguments of timm's `PatchEmbed`.

    Raises:
        ValueError: another patch size.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        *,
        width: int = 64,
        **timm: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **timm)
        if tuple(self.patch_size) != (16, 16):
            raise ValueError(f"patch_size is {patch_size}; LV-ViT's stem makes patches of 16")
        like: dict[str, Any] = {"device": self.proj.weight.device, "dtype": self.proj.weight.dtype}
        self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False, **like)
        self.bn1 = nn.BatchNorm2d(width, **like)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False, **like)
        self.bn2 = nn.BatchNorm2d(width, **like)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False, **like)
        self.bn3 = nn.BatchNorm2d(width, **like)
        self.proj = nn.Conv2d(width, embed_dim, 8, stride=8, **like)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the picture size.

        Raises:
            ValueError: another patch size.
        """
        if patch_size is not None and tuple(patch_size) != (16, 16):
            raise ValueError(f"patch_size is {patch_size}; LV-ViT's stem makes patches of 16")
        super().set_input_size(img_size)

    def forward(self, x: Float[Tensor, "batch channels height_px width_px"]) -> Float[Tensor, "batch patches dim"]:
        """Embed the patches.

        Raises:
            ValueError: the picture is of another size.
        """
        if tuple(x.shape[-2:]) != tuple(self.img_size):
            raise ValueError(f"pictures of {tuple(x.shape[-2:])} px; this model takes {self.img_size}: set_input_size")
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.norm(self.proj(x).flatten(2).mT)


def _listed(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return list(indices) if isinstance(indices, Sequence) else indices


def _whole(x: Tensor, left: Left | None, total: int) -> Tensor:
    """All tokens; those that are gone are zero."""
    if left is None or left.places is None:
        return x
    places = left.places.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    return x.new_zeros(x.shape[0], total, x.shape[-1]).scatter(1, places, x)


def _which(left: Left | None, total: int) -> Tensor | None:
    """The tokens that are left, as a mask of all."""
    if left is None or left.places is None:
        return None if left is None else left.valid
    valid = torch.zeros(left.places.shape[0], total, dtype=torch.bool, device=left.places.device)
    return valid.scatter(1, left.places, True)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: Sparsifiner) -> dict[str, Tensor]:
    """Bring a published file to our names, which are the authors'.

    A dense DeiT or LV-ViT loads too: then the predictors stay as they are in `model`.

    Args:
        state_dict: the authors' file, a dense DeiT's (`{"model": ...}`), a dense LV-ViT's, or a file of ours.
        model: the network that will load it; its size decides about position and predictor tables.

    Raises:
        ValueError: the predictors are of another rank.
    """
    for key in ("model", "state_dict"):
        state_dict = state_dict.get(key, state_dict)
    state = filter_vit({name.removeprefix("module."): tensor for name, tensor in state_dict.items()}, model)
    for name in [name for name in state if name.startswith("head_dist.")]:
        del state[name]
    ours = model.state_dict()
    predictor = ".attn.mask_predictor."
    if not any(predictor in name for name in state):
        return state | {name: tensor for name, tensor in ours.items() if predictor in name}
    grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens
    for name, table in state.items():
        if name.endswith(("proj_n", "proj_back_n")):
            if table.shape[1] != ours[name].shape[1]:
                raise ValueError(
                    f"the file's predictors have rank {table.shape[1]}, the model's {ours[name].shape[1]}; "
                    f"give predictor={{'reduce_n': {len(ours[name]) / table.shape[1]:g}}}"
                )
            side = math.isqrt(len(table) - prefix)
            if len(table) != len(ours[name]):
                state[name] = resize_table(table, (side, side), grid, prefix=prefix)
    return state


def _cfg(url: str, origin: str, **changed: Any) -> dict[str, Any]:
    """Preprocessing of DeiT's: ImageNet's mean and deviation, centre crop of 224 from 256, bicubic."""
    return {
        "url": url,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "fixed_input_size": True,
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "paper_ids": PAPER,
        "paper_name": "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers",
        "origin_url": origin,
        "notes": ("the dense network that training starts from",),
        **changed,
    }


_DEIT = "https://dl.fbaipublicfiles.com/deit/deit_{}.pth"
_LVVIT = "https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/lvvit_{}.pth.tar"


def _deit_cfg(file: str) -> dict[str, Any]:
    return _cfg(_DEIT.format(file), "https://github.com/facebookresearch/deit", license="apache-2.0")


def _lvvit_cfg(file: str) -> dict[str, Any]:
    # the authors evaluate LV-ViT at a crop of 0.9
    changed = {"first_conv": "patch_embed.conv1", "classifier": ("head", "aux_head"), "crop_pct": 0.9}
    return _cfg(_LVVIT.format(file), "https://github.com/zihangJiang/TokenLabeling", license="apache-2.0", **changed)


#: The dense networks that training starts from, as the notes of their configurations say.
default_cfgs = generate_default_cfgs(
    {
        "sparsifiner_deit_tiny_patch16_224.dense_in1k": _deit_cfg("tiny_patch16_224-a1311bcf"),
        "sparsifiner_deit_small_patch16_224.dense_in1k": _deit_cfg("small_patch16_224-cd65a155"),
        "sparsifiner_deit_base_patch16_224.dense_in1k": _deit_cfg("base_patch16_224-b5f2ef4d"),
        "sparsifiner_lvvit_small_patch16_224.dense_in1k": _lvvit_cfg("s-26M-224-83.3"),
        "sparsifiner_lvvit_medium_patch16_224.dense_in1k": _lvvit_cfg("m-56M-224-84.0"),
    }
)


def _create(variant: str, pretrained: bool, settings: dict[str, Any], given: dict[str, Any]) -> nn.Module:
    return build_model_with_cfg(
        Sparsifiner,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": given.pop("out_indices", 3), "feature_cls": "getter"},
        **{**settings, **given},
    )


def _deit(variant: str, pretrained: bool, dim: int, heads: int, given: dict[str, Any]) -> nn.Module:
    return _create(variant, pretrained, {"embed_dim": dim, "num_heads": heads}, given)


def _lvvit(variant: str, pretrained: bool, dim: int, depth: int, heads: int, given: dict[str, Any]) -> nn.Module:
    settings = {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": 3,
        "qkv_bias": False,
        "norm_layer": partial(nn.LayerNorm, eps=1e-5),
        "embed_layer": ConvPatchEmbed,
        "skip_lam": 2,
        "aux_head": True,
    }
    return _create(variant, pretrained, settings, given)


@register_model
def sparsifiner_deit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Sparsifiner on DeiT-T: 5.9 M parameters."""
    return _deit("sparsifiner_deit_tiny_patch16_224", pretrained, 192, 3, kwargs)


@register_model
def sparsifiner_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Sparsifiner-S, on DeiT-S: 22.3 M parameters."""
    return _deit("sparsifiner_deit_small_patch16_224", pretrained, 384, 6, kwargs)


@register_model
def sparsifiner_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Sparsifiner on DeiT-B: 86.8 M parameters."""
    return _deit("sparsifiner_deit_base_patch16_224", pretrained, 768, 12, kwargs)


@register_model
def sparsifiner_lvvit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Sparsifiner on LV-ViT-S: 26.4 M parameters."""
    return _lvvit("sparsifiner_lvvit_small_patch16_224", pretrained, 384, 16, 6, kwargs)


@register_model
def sparsifiner_lvvit_medium_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Sparsifiner on LV-ViT-M: 56.2 M parameters."""
    return _lvvit("sparsifiner_lvvit_medium_patch16_224", pretrained, 512, 20, 8, kwargs)
