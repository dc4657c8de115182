"""Saliency of image tokens in the vision tower.

It is the attention of the class token to them, or the attention that they receive if there is no class token.

The tower is run once more with an attention function that records it in two layers. Patches then
become image tokens as the model itself merges, pools, tiles or permutes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches
from transformers.vision_utils import get_vision_window_index

from .shared_features import without_cached_features

__all__ = ["TOKENS_OF_PATCHES", "Saliency", "image_features", "image_saliency", "tower_layers", "vision_tower"]

_NAME = "regard_saliency"
_ROWS = 256  # of the tower's attention at a time

#: Attention module of a tower -> where its numbers go while it is watched, and how they are made.
_WATCHED: WeakKeyDictionary[nn.Module, tuple[list[Tensor], str]] = WeakKeyDictionary()


class Saliency(NamedTuple):
    """Scores of all tokens of the prompts, 0 where there is no image.

    Attributes:
        first: in the tower's first layer.
        last: in its second to last layer.
    """

    first: Float[Tensor, "samples prompt"]
    last: Float[Tensor, "samples prompt"]


def image_saliency(
    model: PreTrainedModel, inputs: Mapping[str, Any], image: Bool[Tensor, "samples prompt"]
) -> Saliency:
    """Run the vision tower and score every image token.

    Args:
        model: a vision-language model of one of the families in `TOKENS_OF_PATCHES`.
        inputs: its inputs, with the pixels.
        image: which tokens of the prompts are the image's.

    Raises:
        ValueError: the family is not known, or the tower gives another number of tokens than the prompts have.
    """
    kind = model.config.model_type
    if kind not in TOKENS_OF_PATCHES:
        raise ValueError(
            f"how patches become image tokens is not known for {kind!r}; known: {', '.join(sorted(TOKENS_OF_PATCHES))}"
        )
    tower = vision_tower(model)
    layers = tower_layers(tower)
    rule = "class" if _has_class_token(tower) else "received"
    watched = {layers[0]: rule, layers[-2 if len(layers) > 1 else 0]: rule}
    towers, crosses = [tower], list[nn.Module]()
    whole: Any = model
    if kind == "instructblip":
        crosses = [
            module.crossattention.attention for module in whole.qformer.modules() if hasattr(module, "crossattention")
        ]
        watched |= dict.fromkeys(crosses, "map")
        towers.append(whole.qformer)
    with without_cached_features(model), _watching(towers, watched) as seen, torch.no_grad():
        image_features(model, inputs)
    if kind == "instructblip":
        maps = torch.stack([seen[cross][0] for cross in crosses]).mean(dim=0)  # images tokens patches
        inputs = {**inputs, "patch_shares": maps[:, :, 1:]}
    scores = []
    for layer in (layers[0], layers[-2 if len(layers) > 1 else 0]):
        tokens = TOKENS_OF_PATCHES[kind](model, seen[layer], inputs)
        if tokens.numel() != int(image.sum()):
            raise ValueError(
                f"the vision tower of {kind} gives {tokens.numel()} image tokens, the prompts have {int(image.sum())}"
            )
        scores.append(
            torch.zeros(image.shape, device=image.device).masked_scatter(image, tokens.float().to(image.device))
        )
    return Saliency(*scores)


def vision_tower(model: PreTrainedModel) -> PreTrainedModel:
    """The vision tower of a model.

    Raises:
        ValueError: there is none.
    """
    config = getattr(model.config, "vision_config", None)
    for module in model.modules():
        if config is not None and isinstance(module, PreTrainedModel) and module.config is config:
            return module
    raise ValueError(f"{type(model).__name__} has no vision tower")


def tower_layers(tower: nn.Module) -> list[nn.Module]:
    """The attention of every layer of a vision tower, in order."""
    found = []
    for module in tower.modules():
        if type(module).__name__.endswith("Attention") and (hasattr(module, "q_proj") or hasattr(module, "qkv")):
            found.append(module)
    assert found, type(tower).__name__
    return found


def _has_class_token(tower: nn.Module) -> bool:
    return any(name.endswith(("class_embedding", "cls_token")) for name, _ in tower.named_parameters())


def image_features(model: PreTrainedModel, inputs: Mapping[str, Any]) -> Float[Tensor, "tokens width"]:
    """The embeddings that replace the image tokens, in order."""
    features: Any = model.base_model.get_image_features
    known = inspect.signature(features).parameters
    output = features(**{name: value for name, value in inputs.items() if name in known and value is not None})
    found = output.pooler_output
    parts = list(found) if isinstance(found, list | tuple) else [found]
    return torch.cat([part.flatten(0, -2) for part in parts])


@contextmanager
def _watching(
    towers: Sequence[PreTrainedModel], watched: Mapping[nn.Module, str]
) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Note the attention of modules while towers run."""
    seen: dict[nn.Module, list[Tensor]] = {module: [] for module in watched}
    before = [str(tower.config._attn_implementation) for tower in towers]
    try:
        for tower in towers:
            tower.set_attn_implementation(_NAME)
        _WATCHED.update({module: (seen[module], rule) for module, rule in watched.items()})
        yield seen
    finally:
        for module in watched:
            _WATCHED.pop(module, None)
        for tower, implementation in zip(towers, before, strict=True):
            tower.set_attn_implementation(implementation)


def _watched_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads rows head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys value_dim"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`sdpa`, and a note of the attention that patches receive; the signature is transformers' own."""
    if module in _WATCHED:
        into, rule = _WATCHED[module]
        into.append(_noted(query, key, attention_mask, scaling, rule))
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def _noted(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, rule: str) -> Tensor:
    """(batch, patches) attention of the class token or received, sum of the heads; or the whole map, their mean."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    length = 1 if rule == "class" else query.shape[2]
    parts = []
    for start in range(0, length, _ROWS):
        rows = slice(start, min(start + _ROWS, length))
        scores = (query[:, :, rows] @ key.transpose(-1, -2) * scaling).float()
        if mask is not None:
            part = mask[..., rows, : key.shape[2]]
            scores = scores.masked_fill(~part, -torch.inf) if part.dtype == torch.bool else scores + part
        weights = scores.softmax(dim=-1).nan_to_num()
        parts.append(weights.mean(dim=1) if rule == "map" else weights.sum(dim=(1, 2))[:, None])
    noted = torch.cat(parts, dim=1)
    if rule == "map":
        return noted
    noted = noted.sum(dim=1)
    return noted[:, 1:] if rule == "class" else noted


AttentionInterface.register(_NAME, _watched_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def _one_to_one(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
    return torch.cat(list(seen)).flatten()


def _pooled(side_of: Callable[[PreTrainedModel, int], int]) -> Callable[..., Tensor]:
    """Squares of patches, row by row, become one token each; `side_of` gives the width of a square in patches."""

    def tokens(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        patches = torch.cat(list(seen))  # images patches
        side = round(patches.shape[1] ** 0.5)
        square = side_of(model, side)
        return functional.avg_pool2d(patches.unflatten(1, (1, side, side)), square).flatten()

    return tokens


def _tiles(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
    """Tiles of an image, laid out by the model's own packing; row separators score 0."""
    config: Any = model.config
    base: Any = model.base_model
    sizes = inputs["image_sizes"]
    patches = torch.cat(list(seen))[..., None]  # tiles patches 1
    counts = [
        image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size) for size in sizes
    ]
    several = inputs.get("batch_num_images")
    if several is not None:  # LLaVA-OneVision gives images that share a prompt one tile each
        alone = [int(number) == 1 for number in several for _ in range(int(number))]
        counts = [count if one else 1 for count, one in zip(counts, alone, strict=True)]
    options: dict[str, Any] = {"image_newline": patches.new_zeros(1)}
    if "vision_feature_select_strategy" in inspect.signature(base.pack_image_features).parameters:
        options["vision_feature_select_strategy"] = config.vision_feature_select_strategy
    elif hasattr(config, "vision_aspect_ratio"):
        options["vision_aspect_ratio"] = config.vision_aspect_ratio
    packed, _ = base.pack_image_features(list(patches.split(counts)), sizes, **options)
    return torch.cat([one.flatten() for one in packed])


def _grids(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
    """The patches of a token follow one another."""
    merge = model.config.vision_config.spatial_merge_size
    return torch.cat([part.flatten() for part in seen]).unflatten(0, (-1, merge**2)).mean(dim=-1)


def _windows(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
    """As `_grids`, in the order of the windows that the tower cuts the image into."""
    config = model.config.vision_config
    order, _ = get_vision_window_index(
        inputs["image_grid_thw"], config.spatial_merge_size, config.window_size, config.patch_size
    )
    return _grids(model, seen, inputs)[order.argsort().to(seen[0].device)]


def _one_sequence(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
    """All images, of any size, follow one another in one sequence."""
    patch, merge = model.config.vision_config.patch_size, model.config.spatial_merge_size
    grids = [(int(height) // patch, int(width) // patch) for height, width in inputs["image_sizes"]]
    images = torch.cat([part.flatten() for part in seen]).split([rows * columns for rows, columns in grids])
    pooled = [
        functional.avg_pool2d(one.view(1, *grid), merge).flatten() for one, grid in zip(images, grids, strict=True)
    ]
    return torch.cat(pooled)


def _queries(model: PreTrainedModel, seen: Sequence[Tensor], inputs: Mapping[str, Any]) -> Tensor:
    """Scores of the patches, weighted by the attention of each query token."""
    return torch.einsum("itp,ip->it", inputs["patch_shares"], torch.cat(list(seen))).flatten()


#: Type of a model -> from the patches' scores, call by call of a tower's layer, to those of the image tokens.
TOKENS_OF_PATCHES: dict[str, Callable[[PreTrainedModel, Sequence[Tensor], Mapping[str, Any]], Tensor]] = {
    "llava": _one_to_one,
    "paligemma": _one_to_one,
    "llava_next": _tiles,
    "llava_onevision": _tiles,
    "qwen2_vl": _grids,
    "qwen2_5_vl": _windows,
    "qwen3_vl": _grids,
    "glm4v": _grids,
    "gemma3": _pooled(lambda model, side: side // round(model.config.mm_tokens_per_image**0.5)),
    "idefics3": _pooled(lambda model, side: model.config.scale_factor),
    "smolvlm": _pooled(lambda model, side: model.config.scale_factor),
    "internvl": _pooled(lambda model, side: round(1 / model.config.downsample_ratio)),
    "mistral3": _one_sequence,
    "instructblip": _queries,
}
