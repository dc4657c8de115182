"""Hosts for attention blocks: one family of timm models in each file, and the table of them.

A host is a model that timm builds; the function of its family builds it with our block through timm's own constructor
arguments. No finished model is changed. Each function is called
`build(entry, plain, attention, options, stages, **kwargs)`; see `build_vit`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import timm
from timm.models import is_model, model_entrypoint, split_model_name_tag
from timm.models.metaformer import checkpoint_filter_fn as filter_metaformer
from timm.models.vision_transformer import checkpoint_filter_fn as filter_vit
from torch import Tensor, nn

from ...class_names import nearest
from .metaformer import build_metaformer
from .metanext import build_metanext
from .mobilenet import build_mobilenet
from .resnet import build_resnet
from .vit import build_vit

__all__ = ["HOSTS", "Host", "check_name", "find_host"]


class Host(NamedTuple):
    """A family of hosts.

    Attributes:
        names: patterns of the names of its models.
        build: the function that builds one with a block.
        filter_weights: timm's translation of published weights, `(state_dict, model) -> state_dict`.
        out_indices: default feature maps of `features_only=True`; None for all.
    """

    names: str
    build: Callable[..., nn.Module]
    filter_weights: Callable[..., dict[str, Tensor]] | None = None
    out_indices: int | None = None


#: timm's module -> the family.
HOSTS: dict[str, Host] = {
    "timm.models.vision_transformer": Host("vit_*", build_vit, filter_vit, 3),
    "timm.models.deit": Host("deit*", build_vit, partial(filter_vit, adapt_layer_scale=True), 3),
    "timm.models.metaformer": Host("poolformer*", build_metaformer, filter_metaformer),
    "timm.models.inception_next": Host("inception_next_*", build_metanext),
    "timm.models.resnet": Host("resnet*, resnext*", build_resnet),
    "timm.models.efficientnet": Host("mobilenetv2_*, efficientnet_*", build_mobilenet),
}

#: Prefix of an unsupported timm module -> the most similar host.
_ALTERNATIVES = {
    "byobnet": "resnet50",
    "convnext": "inception_next_tiny",
    "mobilenetv3": "mobilenetv2_100",
    "regnet": "resnext50_32x4d",
    "res": "resnet50",
    "swin": "poolformerv2_s12",
    "pvt": "poolformerv2_s12",
    "max": "poolformerv2_s12",
    "beit": "deit3_base_patch16_224",
    "eva": "deit3_base_patch16_224",
}


def check_name(name: str) -> None:
    """Check that timm has a model of this name, which may have a tag such as `.fb_in1k`.

    Raises:
        ValueError: it does not; the nearest name is suggested.
    """
    architecture, _ = split_model_name_tag(name)
    if not is_model(architecture):
        hint = nearest(architecture, timm.list_models())
        raise ValueError(f"no model is called {name!r}; {hint}timm.list_models() has all names")


def find_host(name: str) -> Host:
    """The family of a host by timm's name for the model.

    Raises:
        ValueError: there is no such model, or it does not accept attention blocks.

    Example:
        >>> find_host("deit3_small_patch16_224.fb_in1k").names
        'deit*'
    """
    check_name(name)
    architecture, _ = split_model_name_tag(name)
    if architecture.endswith("_pruned"):
        whole = architecture.removesuffix("_pruned")
        raise ValueError(f"{name!r} has pruned channels that fit only its own layers; try {whole!r}")
    module = model_entrypoint(architecture).__module__
    if module in HOSTS:
        return HOSTS[module]
    start = module.rpartition(".")[2]
    instead = next((_ALTERNATIVES[key] for key in _ALTERNATIVES if start.startswith(key)), "vit_small_patch16_224")
    raise ValueError(
        f"{name!r} does not accept another attention; try {instead!r}. "
        f"Hosts: {', '.join(host.names for host in HOSTS.values())}"
    )
