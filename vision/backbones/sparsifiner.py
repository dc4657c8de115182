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
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as filter_vit
from torch import Tensor, nn

from ..attention.mask_predictor import MaskPredictor, resize_table
from .lvvit import ConvPatchEmbed
from .sparsifiner_tokens import Left, SparsifinerBlock

__all__ = ["KEYS", "PAPER", "TOP1", "Sparsifiner", "checkpoint_filter_fn"]

PAPER = "arXiv:2303.13755"

#: A name that only files of this family have; the dense networks it starts from are DeiT and LV-ViT.
KEYS = (r"\.attn\.mask_predictor\.",)

#: No trained weights are published.
TOP1: dict[str, float] = {}


class Sparsifiner(VisionTransformer):
    """A vision transformer with sparse attention, which may drop tokens.

    Feature maps of dropped tokens are zero (and the bias of the last norm after it), whatever `token_mode` is.

    Args:
        img_size: height and width of the images, or one number; `set_input_size` changes it.
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
                raise ValueError(f"{name} is {list(rates)}; give {depth} shares above 0 and up to 1")
        if token_keep_rates and (aux_head or not class_token):
            raise ValueError("dropping tokens needs a class token and no aux_head; leave token_keep_rates out")
        if token_keep_rates and list(token_keep_rates) != sorted(token_keep_rates, reverse=True):
            raise ValueError(f"token_keep_rates is {list(token_keep_rates)}; what was dropped does not come back")
        if token_mode not in ("reference", "removed", "clean"):
            raise ValueError(f"token_mode is {token_mode!r}; give reference, removed or clean")
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
        """Replace the classifier, and the pooling if one is given."""
        super().reset_classifier(num_classes, global_pool)
        if self.has_aux_head:
            like = next(self.parameters())
            aux = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
            self.aux_head = aux.to(device=like.device, dtype=like.dtype)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the image or patch size; the predictors' tables are resized."""
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
        """Keep the patches that the class token attends to most."""
        prefix, batch = self.num_prefix_tokens, x.shape[0]
        if left is not None and left.valid is not None:
            seen = seen.masked_fill(~left.valid[:, prefix:], -torch.inf)
        kept = prefix + seen.topk(count).indices.sort(dim=-1).values  # batch count, among those there
        kept = torch.cat([torch.arange(prefix, device=x.device).expand(batch, -1), kept], dim=1)
        if self.token_mode == "reference":
            valid = torch.zeros(batch, total, dtype=torch.bool, device=x.device).scatter_(1, kept, True)
            return x * valid.unsqueeze(-1), Left(count, valid=valid)
        x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        positions = kept if left is None or left.positions is None else left.positions.gather(1, kept)
        dropped = total - prefix - count if self.token_mode == "removed" else 0
        return x, Left(count, dropped, positions=positions)

    def forward_features(  # type: ignore[override]
        self, x: Float[Tensor, "batch channels height_px width_px"], attn_mask: None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """All tokens after the last block, normalised.

        Raises:
            ValueError: a mask is given.
        """
        if attn_mask is not None or is_causal:
            raise ValueError("Sparsifiner predicts its masks and does not accept attn_mask or is_causal")
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
        """The tokens after several blocks, as in timm.

        Args:
            x: images.
            indices: blocks from 0; a number selects that many last ones, None all.
            return_prefix_tokens: whether each comes as a pair (patches, prefix tokens).
            norm: whether the last norm is applied to each.
            stop_early: whether to skip blocks after the last one requested.
            output_fmt: NCHW or NLC.
            intermediates_only: whether to return the list alone, without the last tokens.

        Raises:
            ValueError: another `output_fmt`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt is {output_fmt!r}; give NCHW or NLC")
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


def _listed(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return list(indices) if isinstance(indices, Sequence) else indices


def _whole(x: Tensor, left: Left | None, total: int) -> Tensor:
    """All tokens; those that are gone are zero."""
    if left is None or left.positions is None:
        return x
    positions = left.positions.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    return x.new_zeros(x.shape[0], total, x.shape[-1]).scatter(1, positions, x)


def _which(left: Left | None, total: int) -> Tensor | None:
    """The tokens that are left, as a mask of all."""
    if left is None or left.positions is None:
        return None if left is None else left.valid
    valid = torch.zeros(left.positions.shape[0], total, dtype=torch.bool, device=left.positions.device)
    return valid.scatter(1, left.positions, True)


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
    """Preprocessing of DeiT's: ImageNet's mean and std, centre crop of 224 from 256, bicubic."""
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


#: The dense networks that training starts from, from the notes of their configurations.
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
