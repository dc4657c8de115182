"""Weights files: what is read, what is refused, and how errors are explained."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from regard.vision import checkpoints, create_model
from regard.vision.backbones import FAMILIES
from regard.vision.checkpoints import fitting, foreign_names, looks_like, read_weights, recognise

WEIGHTS = {"head.weight": torch.arange(6.0).view(2, 3)}


class Hostile:
    """Would touch a file if it were unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


def save(content: Any, file: Path, **options: Any) -> Path:
    torch.save(content, file, **options)
    return file


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "epoch": 3},
        {"state_dict": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}},
        {"model": {"state_dict": {f"_orig_mod.{name}": tensor for name, tensor in WEIGHTS.items()}}},
        {"params": {"head.weight": torch.zeros(2, 3)}, "params_ema": WEIGHTS},
        {"model": {"head.weight": torch.zeros(2, 3)}, "model_ema": WEIGHTS},
        {"student": {"head.weight": torch.zeros(2, 3)}, "teacher": WEIGHTS},
        {"model": WEIGHTS, "args": argparse.Namespace(lr=1e-3, model="van_b0")},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_however_they_are_wrapped(content: dict, zipped: bool, tmp_path: Path) -> None:
    file = save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(file)
    assert list(found) == ["head.weight"]
    assert torch.equal(found["head.weight"], WEIGHTS["head.weight"])


def test_plain_weights_are_preferred_where_that_is_asked_for(tmp_path: Path) -> None:
    file = save({"model": WEIGHTS, "model_ema": {"head.weight": torch.zeros(2, 3)}}, tmp_path / "file.pth")
    assert torch.equal(read_weights(file, averaged=False)["head.weight"], WEIGHTS["head.weight"])


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.bin")
    assert torch.equal(read_weights(tmp_path / "weights.bin")["head.weight"], WEIGHTS["head.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_wants_more_is_refused_and_says_what(zipped: bool, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    file = save({"model": WEIGHTS, "x": Hostile(touched)}, tmp_path / "f.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"posix\.system.*regard convert .* --trust true"):
        read_weights(file)
    assert not touched.exists()


def test_imports_are_named_in_any_protocol(tmp_path: Path) -> None:
    file = save({"x": Hostile(tmp_path)}, tmp_path / "f.pth", _use_new_zipfile_serialization=False, pickle_protocol=4)
    assert foreign_names(file) == ["posix.system"]


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    file = save(torch.nn.Linear(2, 3), tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(file)


def test_damage_is_told_from_mischief(tmp_path: Path) -> None:
    whole = save(WEIGHTS, tmp_path / "whole.pth").read_bytes()
    old = save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False).read_bytes()
    save_file(WEIGHTS, tmp_path / "whole.safetensors")
    safe = (tmp_path / "whole.safetensors").read_bytes()
    for content, message in (
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n<html><body>Sign in", "is a web page"),
        (whole[:-40], "damaged, truncated or not a weights file.*delete it and download it again"),
        (old[:60], "damaged"),
        (old[:-4], "damaged"),
        (safe[:-3], "damaged"),
        (b"12345678 no pickle at all", "damaged"),
    ):
        (tmp_path / "file.pth").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"is a folder.*local-dir:"):
        read_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights file .*none\.pth"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="holds no weights by name; it has epoch, args"):
        read_weights(save({"epoch": 3, "args": {}}, tmp_path / "file.pth"))
    with pytest.raises(ValueError, match="holds no weights by name; it has list"):
        read_weights(save([torch.zeros(3)], tmp_path / "file.pth"))


def shapes(name: str, **options: Any) -> dict[str, torch.Tensor]:
    with torch.device("meta"), checkpoints.SkipInit():
        return timm.create_model(name, **options).state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_knows_its_own_files_and_no_others(family: str) -> None:
    assert FAMILIES[family].KEYS
    assert recognise(shapes(next(iter(FAMILIES[family].default_cfgs)))) is FAMILIES[family]


@pytest.mark.parametrize(
    ("name", "options", "fits"),
    [
        ("vig_small", {"num_classes": 7}, ["vig_small"]),
        ("vig_tiny", {"in_chans": 1}, ["vig_tiny"]),
        ("biformer_stl", {}, ["biformer_stl", "biformer_stl_nchw"]),
        ("vig_tiny", {"embed_dim": 96}, []),
    ],
)
def test_the_size_is_found_by_shapes(name: str, options: dict, fits: list[str]) -> None:
    weights = shapes(name, **options)
    family = recognise(weights)
    assert family is not None
    assert fitting(weights, family) == fits


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_tiny_patch16_224", "a ViT or DeiT of timm"),
        ("resnet18", "a ResNet"),
        pytest.param("swin_tiny_patch4_window7_224", "a Swin", marks=pytest.mark.full),
        pytest.param("convnext_atto", "a ConvNeXt", marks=pytest.mark.full),
        ("vig_h_tiny", "the family vig_h and fits vig_h_tiny"),
    ],
)
def test_a_stranger_is_named(name: str, words: str) -> None:
    assert f"it looks like {words}" in looks_like(shapes(name))


def test_another_family_and_another_size_are_named(tmp_path: Path) -> None:
    file = tmp_path / "authors.pth"
    torch.save({"model": timm.create_model("vig_tiny").state_dict()}, file)
    with pytest.raises(
        ValueError, match=r"authors\.pth does not load into van_b0: it looks like the family vig and fits"
    ):
        create_model("van_b0", weights=file)
    with pytest.raises(ValueError, match=r"fits vig_tiny; the shapes differ of .* is .*192.* there, .*384.* here"):
        create_model("vig_small", weights=file)
    with pytest.raises(ValueError, match="does not load into mobilenetv2_ela: it looks like the family vig"):
        create_model("mobilenetv2_ela", weights=file)
    with pytest.raises(ValueError, match="does not load into resnet18: it looks like the family vig"):
        create_model("resnet18", weights=file)


def as_in_the_repository(weights: dict) -> dict:
    return weights


def old_vig_h(weights: dict) -> dict:
    pairs = (
        (".op.", ".self_attention."),
        (".norm.", ".ln_1."),
        ("classifier.ln_1", "norm"),
        ("classifier.head", "head"),
    )
    renamed = {}
    for name, tensor in weights.items():
        for new, old in pairs:
            name = name.replace(new, old)
        renamed[name] = tensor[..., None, None] if name.endswith("qkv_proj.weight") else tensor
    return renamed


def refactored_biformer(weights: dict) -> dict:
    pairs = ((".qkv.qkv.", ".qkv_linear."), (".wo.", ".output_linear."), (".mlp.3.", ".mlp.2."))
    renamed = {}
    for name, tensor in weights.items():
        for new, old in pairs:
            name = name.replace(new, old)
        linear = tensor.ndim == 2 and name.startswith("stages.")
        renamed[name.replace("stages.0.", "stages.0.blocks.")] = tensor[..., None, None] if linear else tensor
    return renamed


SMALL = {"depths": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "options", "rename", "wrap"),
    [
        ("van_b0", {**SMALL, "dims": (8, 8, 16, 16)}, as_in_the_repository, "state_dict"),
        ("vig_tiny", {"embed_dim": 48, "num_heads": 3, "depth": 1}, as_in_the_repository, "model"),
        ("vig_h_tiny", {**SMALL, "dims": (8, 16, 32, 64), "num_heads": (1, 2, 4, 8)}, old_vig_h, "model"),
        ("biformer_tiny", {**SMALL, "dims": (32, 32, 64, 64)}, as_in_the_repository, "model"),
        ("biformer_tiny", {**SMALL, "dims": (32, 32, 64, 64)}, refactored_biformer, "model"),
        ("sparsifiner_deit_tiny_patch16_224", {"embed_dim": 48, "depth": 1}, as_in_the_repository, "model"),
        pytest.param(
            "sparsifiner_lvvit_small_patch16_224",
            {"embed_dim": 48, "depth": 1},
            as_in_the_repository,
            "model",
            marks=pytest.mark.full,
        ),
        pytest.param("regard_halonet26t", {}, as_in_the_repository, "state_dict", marks=pytest.mark.full),
        ("mobilenetv2_ela", {"width_mult": 0.25}, as_in_the_repository, "state_dict"),
    ],
)
def test_the_authors_file_loads_and_its_head_is_kept_or_replaced(
    name: str, options: dict, rename: Callable, wrap: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=20, **options)
    authors = {f"module.{key}": tensor for key, tensor in rename(model.state_dict()).items()}
    torch.save({wrap: authors, "args": argparse.Namespace(epochs=300), "epoch": 299}, tmp_path / "authors.pth")
    same = create_model(name, weights=tmp_path / "authors.pth", **options)
    for key, tensor in model.state_dict().items():
        assert torch.equal(same.state_dict()[key], tensor)
    assert same.num_classes == 20
    assert "state_dict" not in same.pretrained_cfg
    assert create_model(name, weights=tmp_path / "authors.pth", num_classes=20, **options).num_classes == 20
    other = create_model(name, weights=tmp_path / "authors.pth", num_classes=10, **options)
    heads = timm.create_model(name, num_classes=10, **options).pretrained_cfg["classifier"]
    for key, tensor in model.state_dict().items():
        if key.startswith(heads if isinstance(heads, str) else tuple(heads)):
            assert len(other.state_dict()[key]) == 10
        else:
            assert torch.equal(other.state_dict()[key], tensor)


def test_biformer_takes_the_plain_weights_as_its_authors_do(tmp_path: Path) -> None:
    options = {**SMALL, "dims": (32, 32, 64, 64), "num_classes": 3}
    plain, average = (timm.create_model("biformer_tiny", **options).state_dict() for _ in range(2))
    torch.save({"model": plain, "model_ema": average}, tmp_path / "best.pth")
    loaded = create_model("biformer_tiny", weights=tmp_path / "best.pth", **options)
    assert torch.equal(loaded.stages[0][0].mlp[0].weight, plain["stages.0.0.mlp.0.weight"])


def test_published_weights_are_fetched_and_checked_by_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "published.pth"
    torch.save({"state_dict": timm.create_model("van_b0").state_dict()}, file)
    asked = []
    monkeypatch.setattr(checkpoints, "fetch", lambda url, sha256: asked.append(url) or file)
    assert create_model("van_b0.in1k", pretrained=True, num_classes=2).num_classes == 2
    assert asked == [timm.get_pretrained_cfg("van_b0").url]
    assert checkpoints.published_url("regard_halonet26t") is None  # on the Hub, timm's business
    assert checkpoints.published_url("van_b6") is None
    assert checkpoints.published_url("resnet50") is None


def test_a_file_of_the_host_loads_into_a_swapped_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vit = {"img_size": (32, 80), "embed_dim": 48, "depth": 2, "num_heads": 3}
    host = timm.create_model("vit_tiny_patch16_224", num_classes=5, **vit)
    torch.save({"state_dict": host.state_dict()}, tmp_path / "host.pth")
    model = create_model("vit_tiny_patch16_224", attention="van", weights=tmp_path / "host.pth", **vit)
    assert torch.equal(model.head.weight, host.head.weight)
    assert "Not used by the new model: nothing" in caplog.text
    timm.models.save_for_hf(model, tmp_path / "saved", safe_serialization=True)
    again = create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True)
    assert torch.equal(again.blocks[0].mlp.fc1.weight, host.blocks[0].mlp.fc1.weight)
    torch.save({"block1.0.attn.spatial_gating_unit.conv_spatial.bias": torch.zeros(3)}, tmp_path / "van.pth")
    with pytest.raises(ValueError, match=r"into vit_tiny_patch16_224: it looks like the family van.*none of its names"):
        create_model("vit_tiny_patch16_224", attention="ela", weights=tmp_path / "van.pth", **vit)


def test_feature_maps_take_a_file_too(tmp_path: Path) -> None:
    options = {**SMALL, "dims": (8, 8, 16, 16)}
    whole = timm.create_model("van_b0", **options)
    torch.save(whole.state_dict(), tmp_path / "file.pth")
    maps = create_model("van_b0", weights=tmp_path / "file.pth", features_only=True, **options)
    assert torch.equal(maps.model.norm4.weight, whole.norm4.weight)
    assert "state_dict" not in {**maps.pretrained_cfg, **maps.model.pretrained_cfg}
