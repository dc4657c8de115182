"""Hosts that take another attention: one family of timm models a file, and the table of them.

A host is a model that timm builds; a family's function builds it with our block in the place that timm's own
constructor arguments leave open. No finished model is changed. Each function is called
`build(entry, plain, attention, options, stages, **kwargs)`; see `build_vit`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import timm
from timm.models import is_model, model_entrypoint, split_model_name_tag
from timm.models.metaformer import checkpoint_filter_fn as filter_metaformer
from timm.models.vision_transformer import checkpoint_filter_fn as filter_vit
from torch import Tensor, nn

from .metaformer import build_metaformer
from .metanext import build_metanext
from .mobilenet import build_mobilenet
from .resnet import build_resnet
from .vit import build_vit

__all__ = ["HOSTS", "Host", "check_name", "find_host"]


class Host(NamedTuple):
    """A family of hosts.

    Attributes:
        names: what its models are called.
        build: builds one with another attention.
        filter_weights: timm's translation of published weights, `(state_dict, model) -> state_dict`.
        out_indices: the feature maps of `features_only=True` where none are asked for; None is all.
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

#: Beginning of a timm module that leaves no place for attention -> what comes nearest.
_INSTEAD = {
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
    """Raise if timm knows no such model; a tag such as `.fb_in1k` may follow the name.

    Raises:
        ValueError: it does not; the nearest name is suggested.
    """
    architecture, _ = split_model_name_tag(name)
    if not is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() has all names"
        raise ValueError(f"no model is called {name!r}; {hint}")


def find_host(name: str) -> Host:
    """The family of a host by timm's name for the model.

    Raises:
        ValueError: there is no such model, or it leaves no place for attention.

    Example:
        >>> find_host("deit3_small_patch16_224.fb_in1k").names
        'deit*'
    """
    check_name(name)
    architecture, _ = split_model_name_tag(name)
    if architecture.endswith("_pruned"):
        whole = architecture.removesuffix("_pruned")
        raise ValueError(f"{name!r} has its channels cut to fit its own layers; try {whole!r}")
    module = model_entrypoint(architecture).__module__
    if module in HOSTS:
        return HOSTS[module]
    start = module.rpartition(".")[2]
    instead = next((_INSTEAD[key] for key in _INSTEAD if start.startswith(key)), "vit_small_patch16_224")
    raise ValueError(
        f"{name!r} leaves no place for another attention; try {instead!r}. "
        f"Hosts: {', '.join(host.names for host in HOSTS.values())}"
    )
