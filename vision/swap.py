"""Create timm models with another attention block.

`create_model` is `regard.create_model`. What it makes is one registered timm model, `regard_swapped`, whose
arguments name the host and the block and are plain JSON. So all that timm does with a model works:
`features_only`, `set_input_size`, `timm.models.save_for_hf(model, folder)` and
`timm.create_model("local-dir:folder", pretrained=True)`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.models import (
    build_model_with_cfg,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
    split_model_name_tag,
)
from torch import nn
from torch.utils.hooks import RemovableHandle

from .attention import attention_class
from .checkpoints import (
    check_published,
    create_from_weights,
    family_of,
    find_file,
    published_url,
    read_weights,
    shorten,
)
from .hosts import check_name, find_host

__all__ = ["create_model"]

_logger = logging.getLogger(__name__)


def create_model(
    name: str,
    *,
    attention: str | None = None,
    attention_options: Mapping[str, Any] | None = None,
    attention_stages: Sequence[int] | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Create a timm model, with another attention if you name one.

    Args:
        name: a model of timm or of Regard, such as `"vit_small_patch16_224"`. Without `attention` also
            `"local-dir:FOLDER"` and `"hf-hub:NAME"`.
        attention: a block of `regard.vision.attention.ATTENTION`, or `package.module:Class`
            for a custom one. `"softmax"` on a ViT is the host itself.
        attention_options: keyword arguments of the block; JSON values.
        attention_stages: 0-based stages of a staged host that get the block; all by default.
        pretrained: whether to load the host's published weights where their names fit. One log message lists what was
            not loaded and what stays newly initialised.
        weights: a file to load instead, its path or its URL, safetensors or PyTorch's (opened with `weights_only`);
            a published family translates the names in its authors' files. Without `attention` all of it must fit,
            except for a head of another `num_classes`; by default the model has as many classes as the file.
        kwargs: timm's own, such as `num_classes`, `img_size`, `drop_path_rate`, `features_only`.

    Raises:
        ValueError: no such model, block, option or stage; the host does not accept the block; or the weights are
            damaged or of another model.
        FileNotFoundError: there is no such weights file.
        OSError: the weights cannot be downloaded.

    Example:
        >>> import torch
        >>> model = create_model("vit_tiny_patch16_224", attention="van", img_size=(64, 96), depth=2)
        >>> model(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 1000])
    """
    if attention is None:
        if attention_options is not None or attention_stages is not None:
            raise ValueError("attention_options and attention_stages need attention=..., the name of a block")
        if ":" not in name:
            check_name(name)
    else:
        swapped = {"attention": attention, "attention_options": attention_options, "attention_stages": attention_stages}
        kwargs |= {"host": name, **swapped}
        name = regard_swapped.__name__
    if weights is None and pretrained and not kwargs.keys() & {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}:
        weights = published_url(name)
        if weights is None:
            check_published(name)
    if weights is None:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    averaged = getattr(family_of(name), "AVERAGED", True)
    return create_from_weights(name, read_weights(find_file(weights), averaged=averaged), weights, **kwargs)


@register_model
def regard_swapped(
    pretrained: bool = False,
    *,
    host: str,
    attention: str,
    attention_options: Mapping[str, Any] | None = None,
    attention_stages: Sequence[int] | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """The timm model behind `create_model`; arguments as there, `host` is its `name`.

    A folder that timm saved loads strictly. Published weights of the host do not fit whole, and what is left
    over is logged.
    """
    family = find_host(host)
    block = attention_class(attention)
    architecture, _ = split_model_name_tag(host)
    entry = model_entrypoint(architecture)
    saved = isinstance(pretrained_cfg, Mapping) and pretrained_cfg.get("source") in ("local-dir", "hf-hub")
    hooks: list[RemovableHandle] = []

    def build(**arguments: Any) -> nn.Module:
        plain = entry(**(arguments | {"device": "meta"}))
        model = family.build(entry, plain, attention, attention_options, attention_stages, **arguments)
        for depth, module in enumerate(module for module in model.modules() if isinstance(module, block)):
            if hasattr(module, "set_depth"):
                module.set_depth(depth)
            module.init_weights()  # most hosts overwrite it
        if pretrained and not saved:
            hooks.append(model.register_load_state_dict_post_hook(_report))
        return model

    host_cfg = resolve_pretrained_cfg(host, pretrained_cfg, pretrained_cfg_overlay)
    model = build_model_with_cfg(
        build,
        regard_swapped.__name__,
        pretrained,
        pretrained_cfg=replace(host_cfg, architecture=regard_swapped.__name__).to_dict(),
        pretrained_filter_fn=family.filter_weights,
        pretrained_strict=saved,
        feature_cfg={"feature_cls": "getter", "out_indices": family.out_indices},
        **kwargs,
    )
    for hook in hooks:
        hook.remove()
    return model


def _report(model: nn.Module, keys: Any) -> None:
    """Log once what did not load; clearing the lists keeps timm from logging it again."""
    if set(keys.missing_keys) >= {name for name, _ in model.named_parameters()}:
        raise RuntimeError(f"none of its names is known; it has {shorten(keys.unexpected_keys)}")
    if keys.missing_keys or keys.unexpected_keys:
        _logger.warning(
            "the host's weights are loaded. Not used by the new model: %s. Newly initialised: %s.",
            shorten(keys.unexpected_keys, 40),
            shorten(keys.missing_keys, 40),
        )
    keys.missing_keys.clear()
    keys.unexpected_keys.clear()
