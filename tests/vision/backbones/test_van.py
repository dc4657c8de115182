import re
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from regard.vision.attention.plain.van import PlainVanBlock
from regard.vision.backbones import van
from regard.vision.backbones.van import VAN, Block, checkpoint_filter_fn

SMALL = {"dims": (8, 16, 24, 32), "mlp_ratios": (4, 4, 2, 2), "depths": (2, 1, 1, 1)}


def small(**options: object) -> VAN:
    torch.manual_seed(0)
    return VAN(**({"num_classes": 5} | SMALL | options)).eval()


def images(height: int = 49, width: int = 66, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (13, 17)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_equals_the_plain_one(height: int, width: int, training: bool) -> None:
    torch.manual_seed(0)
    ours, plain = Block(8, mlp_ratio=4).train(training), PlainVanBlock(8, mlp_ratio=4).train(training)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, height, width)
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-4, atol=1e-4)


def test_chunks_of_a_batch_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    whole = model(images(batch=3)).detach()
    monkeypatch.setattr(van, "CACHE_NUMEL", 2000)
    monkeypatch.setattr("regard.vision.attention.van.CACHE_NUMEL", 2000)
    with torch.no_grad():
        torch.testing.assert_close(model(images(batch=3)), whole)


@pytest.mark.parametrize(
    ("size", "millions"),
    [(0, 4.106), (1, 13.862), (2, 26.578), (3, 44.766), (4, 60.283), (5, 89.968), (6, 199.829)],
)
def test_sizes_are_the_published_ones(size: int, millions: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"van_b{size}")
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)


def test_preprocessing_is_that_of_the_authors() -> None:
    with torch.device("meta"):
        cfg = timm.create_model("van_b0").pretrained_cfg
    assert (cfg["mean"], cfg["std"], cfg["crop_pct"], cfg["interpolation"]) == (
        (0.5,) * 3,
        (0.5,) * 3,
        0.9,
        "bicubic",
    )
    assert cfg["url"].endswith("van_tiny_754.pth.tar")


def test_every_published_accuracy_belongs_to_published_weights() -> None:
    assert set(van.TOP1) == set(timm.list_pretrained("van_b*"))


def test_features_of_all_stages_come_out() -> None:
    model = timm.create_model("van_b0", features_only=True).eval()
    maps = model(images(64, 96))
    assert [tuple(found.shape[1:]) for found in maps] == [(32, 16, 24), (64, 8, 12), (160, 4, 6), (256, 2, 3)]
    assert model.feature_info.channels() == [32, 64, 160, 256]
    assert model.feature_info.reduction() == [4, 8, 16, 32]


def test_features_of_some_stages_prune_the_rest() -> None:
    model = timm.create_model("van_b0", features_only=True, out_indices=(0, 1))
    assert len(model(images(32, 32))) == 2
    assert not any("block3" in name for name, _ in model.named_parameters())


def test_intermediates_end_in_the_features() -> None:
    model = small()
    last, maps = model.forward_intermediates(images())
    torch.testing.assert_close(maps[-1], last)
    torch.testing.assert_close(model.forward_features(images()), last)
    early = model.forward_intermediates(images(), indices=[1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], maps[1])


def test_the_head_can_be_replaced() -> None:
    model = small()
    model.reset_classifier(7, "max")
    assert model(images()).shape == (2, 7)
    assert model.get_classifier() is model.head
    model.reset_classifier(0)
    torch.testing.assert_close(model(images()), model.forward_head(model.forward_features(images()), pre_logits=True))
    model.reset_classifier(0, "")
    assert model(images()).shape == (2, 32, 2, 3)


def test_other_channels_and_types_are_taken() -> None:
    model = small(in_chans=4, dtype=torch.bfloat16)
    assert model(torch.randn(1, 4, 33, 33, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_checkpointing_changes_neither_logits_nor_gradients() -> None:
    plain, saving = small(), small()
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        model(images()).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_layers_are_grouped_from_the_stem_up() -> None:
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher())
    order = {name: number for number, names in groups.items() for name in names}
    assert order["patch_embed1.proj.weight"] < order["block1.0.norm1.weight"] < order["block1.1.norm1.weight"]
    assert order["norm1.weight"] == order["block1.1.norm1.weight"] < order["patch_embed2.proj.weight"]
    assert order["patch_embed2.proj.weight"] == order["block2.0.norm1.weight"] < order["head.weight"]
    assert len(timm.models.group_parameters(model, model.group_matcher(coarse=True))) == 6


def test_layer_scales_do_not_decay() -> None:
    assert "block1.0.layer_scale_1" in small().no_weight_decay()


def hugging_face(name: str) -> str:
    """The authors' name as transformers 4.30 has it, written the other way round than the converter."""
    if name.startswith("head."):
        return name.replace("head", "classifier")
    kind, stage, rest = re.fullmatch(r"(patch_embed|block|norm)(\d)\.(.*)", name).groups()
    prefix = f"van.encoder.stages.{int(stage) - 1}."
    if kind == "norm":
        return f"{prefix}normalization.{rest}"
    if kind == "patch_embed":
        return prefix + rest.replace("proj.", "embeddings.convolution.").replace("norm.", "embeddings.normalization.")
    index, rest = rest.split(".", 1)
    gate = "attention.attention_layer.attention."
    for ours, theirs in {
        "layer_scale_1": "attention_scaling.weight",
        "layer_scale_2": "mlp_scaling.weight",
        "norm1.": "pre_normomalization.",
        "norm2.": "post_normalization.",
        "attn.proj_1.": "attention.pre_projection.conv.",
        "attn.proj_2.": "attention.post_projection.",
        "attn.spatial_gating_unit.conv0.": f"{gate}depth_wise.",
        "attn.spatial_gating_unit.conv_spatial.": f"{gate}depth_wise_dilated.",
        "attn.spatial_gating_unit.conv1.": f"{gate}point_wise.",
        "mlp.fc1.": "mlp.in_dense.",
        "mlp.dwconv.dwconv.": "mlp.depth_wise.",
        "mlp.fc2.": "mlp.out_dense.",
    }.items():
        if rest.startswith(ours):
            return f"{prefix}layers.{index}.{theirs}{rest.removeprefix(ours)}"
    raise AssertionError(name)


def mmpretrain(name: str) -> str:
    if name.startswith("head."):
        return name.replace("head.", "head.fc.")
    for ours, theirs in {
        "proj.": "projection.",
        "conv0": "DW_conv",
        "conv_spatial": "DW_D_conv",
        "dwconv.dwconv": "dwconv",
    }.items():
        name = name.replace(ours, theirs)
    return "backbone." + re.sub(r"^block(\d)", r"blocks\1", name)


@pytest.mark.parametrize(
    "published",
    [
        lambda state: {"epoch": 300, "state_dict": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: (
            {hugging_face(name): tensor for name, tensor in state.items()} | {"van.layernorm.weight": torch.ones(32)}
        ),
        lambda state: {
            "meta": {},
            "state_dict": {mmpretrain(name): tensor for name, tensor in state.items()},
        },
    ],
    ids=["authors", "parallel", "hugging_face", "mmpretrain"],
)
def test_every_published_naming_loads(published: object) -> None:
    model = small()
    state = model.state_dict()
    found = checkpoint_filter_fn(published(state), model)
    assert list(found) == list(state)
    assert all(found[name] is state[name] for name in state)


def test_a_file_of_the_authors_loads_through_timm(tmp_path: object) -> None:
    source = timm.create_model("van_b0", num_classes=1000)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "van.pth.tar")
    overlay = {"file": str(tmp_path / "van.pth.tar")}
    loaded = timm.create_model("van_b0", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3)
    torch.testing.assert_close(loaded.block1[0].layer_scale_1, source.block1[0].layer_scale_1)
    torch.testing.assert_close(loaded.patch_embed1.proj.weight, source.patch_embed1.proj.weight)
    assert loaded.head.out_features == 3


def test_features_export_with_any_size() -> None:
    model = small(num_classes=0, global_pool="")
    sizes = {name: torch.export.Dim(name, min=33, max=512) for name in ("height", "width")}
    exported = torch.export.export(
        model, (images(64, 96),), dynamic_shapes=({2: sizes["height"], 3: sizes["width"]},), strict=False
    ).module()
    for height, width in ((64, 96), (49, 66), (33, 128)):
        torch.testing.assert_close(exported(images(height, width)), model(images(height, width)))


def test_a_saved_network_of_other_widths_loads_again(tmp_path: Path) -> None:
    model = timm.create_model("van_b0", num_classes=3, dims=(8, 16), mlp_ratios=(4, 4), depths=(1, 1)).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    image = torch.rand(1, 3, 33, 50)
    assert torch.equal(again(image), model(image))
