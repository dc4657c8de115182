"""Hosts of every family, small enough for tests; pytest finds this file by `pythonpath`."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.metaformer import GroupNorm1NoBias, MetaFormer

from regard.vision import ATTENTION, HOSTS, create_model


@register_model
def tiny_poolformer(pretrained: bool = False, **kwargs: Any) -> torch.nn.Module:
    """timm's have fixed sizes; a custom host needs no more than this and a line in HOSTS."""
    tiny = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 64), "norm_layers": GroupNorm1NoBias}
    return build_model_with_cfg(MetaFormer, "tiny_poolformer", pretrained, use_mlp_head=False, **tiny, **kwargs)


HOSTS[__name__] = HOSTS["timm.models.metaformer"]

SIZE = (97, 130)  # odd, not square, with grids that are not multiples of a window
TINY_VIT = {"img_size": SIZE, "embed_dim": 48, "depth": 2, "num_heads": 3}
TINY = {
    "vit with prefix": ("vit_tiny_patch16_224", TINY_VIT | {"reg_tokens": 4}),
    "vit": ("vit_tiny_patch16_224", TINY_VIT | {"class_token": False, "global_pool": "avg"}),
    "metaformer": ("tiny_poolformer", {}),
    "metanext": ("inception_next_atto", {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 64)}),
    "resnet": ("test_resnet", {"zero_init_last": False}),  # a bottleneck among basic blocks
    "mobilenet": ("test_efficientnet", {}),
}

#: A mixer and a gate, which stand for the other blocks by default.
REPRESENTATIVES = ("van", "ela")


def cells(*more: tuple[str, str], every: bool = True) -> list[Any]:
    """Pairs of a host and a block; `more`, and with `every` all `REPRESENTATIVES`, run without `full`."""
    default = {*more, *((host, attention) for host in TINY for attention in REPRESENTATIVES if every)}
    return [
        pytest.param(host, attention, marks=() if (host, attention) in default else pytest.mark.full)
        for host in TINY
        for attention in ATTENTION
    ]


STAGED = ("metaformer", "metanext", "resnet")  # where every stage may have the block or not


def build(host: str, attention: str, size: tuple[int, int] = SIZE, stages: list[int] | None = None) -> torch.nn.Module:
    """A host with a block; `stages` is for those in `STAGED`."""
    torch.manual_seed(0)
    name, settings = TINY[host]
    if "img_size" in settings:
        settings = settings | {"img_size": size}
    chosen = stages if host in STAGED else None
    return create_model(name, attention=attention, attention_stages=chosen, num_classes=5, **settings)


@functools.cache
def built(host: str, attention: str) -> torch.nn.Module:
    return build(host, attention).eval()


def untie(module: torch.nn.Module) -> None:
    """Spread the scores of fresh Sparsifiner predictors: among equal scores the choice depends on the backend."""
    for name, parameter in module.named_parameters():
        if "mask_predictor." in name:
            torch.nn.init.normal_(parameter, std=0.3)


def images(count: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, *size)
