"""Walks the table: whatever is in ATTENTION must work in every kind of host."""

import copy
import functools
import io
import warnings
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import timm
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.metaformer import GroupNorm1NoBias, MetaFormer

from regard.vision import ATTENTION, HOSTS, create_model


@register_model
def tiny_poolformer(pretrained: bool = False, **kwargs: Any) -> torch.nn.Module:
    """timm's have fixed sizes; a host of your own needs no more than this and a line in HOSTS."""
    tiny = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 64), "norm_layers": GroupNorm1NoBias}
    return build_model_with_cfg(MetaFormer, "tiny_poolformer", pretrained, use_mlp_head=False, **tiny, **kwargs)


HOSTS[__name__] = HOSTS["timm.models.metaformer"]

SIZE = (97, 130)  # odd, not square, and its grids are multiples of no window
TINY_VIT = {"img_size": SIZE, "embed_dim": 48, "depth": 2, "num_heads": 3}
TINY = {
    "vit with prefix": ("vit_tiny_patch16_224", TINY_VIT | {"reg_tokens": 4}),
    "vit": ("vit_tiny_patch16_224", TINY_VIT | {"class_token": False, "global_pool": "avg"}),
    "metaformer": ("tiny_poolformer", {}),
    "metanext": ("inception_next_atto", {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 64)}),
    "resnet": ("test_resnet", {"zero_init_last": False}),  # a bottleneck among basic blocks
    "mobilenet": ("test_efficientnet", {}),
}
in_every_host = pytest.mark.parametrize("host", TINY)
every_block = pytest.mark.parametrize("attention", ATTENTION)


def build(host: str, attention: str) -> torch.nn.Module:
    torch.manual_seed(0)
    name, settings = TINY[host]
    return create_model(name, attention=attention, num_classes=5, **settings)


@functools.cache
def built(host: str, attention: str) -> torch.nn.Module:
    return build(host, attention).eval()


def pictures(count: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, *SIZE)


@in_every_host
@every_block
def test_every_parameter_learns(host: str, attention: str) -> None:
    model = build(host, attention).train()
    logits = model(pictures())
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
    ours = [parameter for name, parameter in model.named_parameters() if ".attention." in name]
    assert any(parameter.grad.any() for parameter in ours) or (attention == "softmax" and host.startswith("vit"))


@in_every_host
@every_block
def test_bfloat16_is_near_float32(host: str, attention: str) -> None:
    half = copy.deepcopy(built(host, attention)).bfloat16()
    with torch.no_grad():
        logits, expected = half(pictures().bfloat16()).float(), built(host, attention)(pictures())
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


@in_every_host
@every_block
def test_it_compiles_whole(host: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' checks of shapes do not compile
    model = built(host, attention)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pictures()), model(pictures()))
    torch._dynamo.reset()


@in_every_host
@every_block
def test_it_exports_with_any_batch(host: str, attention: str) -> None:
    model = built(host, attention)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))  # of torch about itself
        exported = torch.export.export(model, (pictures(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.testing.assert_close(exported.module()(pictures(3)), model(pictures(3)))


@in_every_host
@every_block
def test_a_saved_folder_loads_bit_equal(host: str, attention: str, tmp_path: Path) -> None:
    model = built(host, attention)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(again(pictures()), model(pictures()))


@in_every_host
@every_block
def test_copies_pickles_and_states_are_the_same_model(host: str, attention: str) -> None:
    model = built(host, attention)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    fresh = build(host, attention).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(pictures())
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False), fresh):
            assert torch.equal(other(pictures()), expected)
