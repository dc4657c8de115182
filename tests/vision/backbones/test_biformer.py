import re

import pytest
import timm
import torch
from torch import Tensor, nn

from regard.vision.backbones import biformer
from regard.vision.backbones.biformer import BiFormer, Block, checkpoint_filter_fn

SMALL = {
    "dims": (8, 16, 24, 32),
    "depths": (2, 1, 1, 1),
    "topks": (1, 2, 4, None),
    "n_win": 2,
    "head_dim": 8,
    "mlp_ratios": (2, 2, 2, 2),
}
LAYOUTS = [
    {},
    {"layout": "swin"},
    {"layout": "swin", "padding": "projected", "lepe_of": "value"},
    {"layer_scale": 0.1, "pre_norm": False},
]


def small(**options: object) -> BiFormer:
    torch.manual_seed(0)
    return BiFormer(**({"num_classes": 5} | SMALL | options)).eval()


def images(height: int = 65, width: int = 98, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "millions", "accuracy"),
    [
        ("biformer_tiny", 13.143, 81.4),
        ("biformer_small", 25.536, 83.8),
        ("biformer_base", 56.805, 84.3),
        ("biformer_stl", 28.373, 82.7),
        ("biformer_stl_nchw", 28.373, 82.7),
    ],
)
def test_sizes_are_the_published_ones(name: str, millions: float, accuracy: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)
    assert biformer.TOP1[f"{name}.in1k"] == accuracy


def test_preprocessing_is_that_of_the_authors() -> None:
    with torch.device("meta"):
        cfg = timm.create_model("biformer_tiny").pretrained_cfg
    assert (cfg["mean"], cfg["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (cfg["crop_pct"], cfg["interpolation"], cfg["input_size"]) == (0.875, "bicubic", (3, 224, 224))
    assert cfg["url"] == "https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvChHEOoGkgwgQzEDlM/root/content"


def test_every_published_accuracy_belongs_to_published_weights() -> None:
    assert set(biformer.TOP1) == set(timm.list_pretrained("biformer*"))


@pytest.mark.parametrize("options", LAYOUTS)
def test_one_step_of_training_moves_every_parameter(options: dict[str, object]) -> None:
    model = small(drop_path_rate=0.0, **options).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    nn.functional.cross_entropy(model(images()), torch.tensor([0, 3])).backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
    optimizer.step()
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    # a BatchNorm takes back shifts and scales that come right before it
    assert all(re.match(r"downsample_layers\..*\.bias|stages\.3\.0\.norm2\.weight", name) for name in still)


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize(
    ("height", "width"),
    [pytest.param(32, 32, marks=pytest.mark.full), (65, 98), pytest.param(33, 130, marks=pytest.mark.full)],
)
def test_images_of_any_size_are_taken(options: dict[str, object], height: int, width: int) -> None:
    assert small(**options)(images(height, width)).isfinite().all()


def test_windows_may_change_after_training() -> None:
    model, other = small(), small(n_win=3)
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(model(images()), other(images()))


def test_drop_path_grows_to_its_rate() -> None:
    model = small(drop_path_rate=0.4)
    rates = [getattr(unit.drop_path, "drop_prob", 0.0) for stage in model.stages for unit in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_features_of_all_stages_come_out() -> None:
    model = timm.create_model("biformer_tiny", features_only=True, depths=(1, 1, 1, 1)).eval()
    maps = model(images(64, 96))
    assert [tuple(found.shape[1:]) for found in maps] == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    assert model.feature_info.channels() == [64, 128, 256, 512]
    assert model.feature_info.reduction() == [4, 8, 16, 32]


def test_features_of_some_stages_prune_the_rest() -> None:
    model = timm.create_model("biformer_tiny", features_only=True, out_indices=(0, 1), n_win=2)
    assert len(model(images(32, 32))) == 2
    assert not any("stages.2" in name for name, _ in model.named_parameters())


def test_intermediates_end_in_the_features() -> None:
    model = small()
    last, maps = model.forward_intermediates(images(), norm=True)
    torch.testing.assert_close(maps[-1], last)
    torch.testing.assert_close(model.forward_features(images()), last)
    early = model.forward_intermediates(images(), indices=[1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], maps[1])
    bare = model.forward_intermediates(images(), indices=1, intermediates_only=True)
    torch.testing.assert_close(model.norm(bare[0]), last)


def test_the_head_can_be_replaced() -> None:
    model = small()
    model.reset_classifier(7, "max")
    assert model(images()).shape == (2, 7)
    assert model.get_classifier() is model.head
    model.reset_classifier(0)
    torch.testing.assert_close(model(images()), model.forward_head(model.forward_features(images()), pre_logits=True))
    model.reset_classifier(0, "")
    assert model(images()).shape == (2, 32, 3, 4)


def test_other_channels_sizes_and_types_are_taken() -> None:
    model = small(in_chans=4, dtype=torch.bfloat16)
    assert model(torch.randn(1, 4, 33, 33, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.device("meta"):
        named = timm.create_model("biformer_tiny", img_size=(128, 160), in_chans=1)
    assert timm.data.resolve_data_config(model=named)["input_size"] == (1, 128, 160)


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
    first, second = (order[f"stages.0.{index}.norm1.weight"] for index in (0, 1))
    assert order["downsample_layers.0.0.weight"] < first < second < order["stages.1.0.norm1.weight"]
    assert order["downsample_layers.1.0.weight"] == order["stages.1.0.norm1.weight"]
    assert order["norm.weight"] == order["stages.3.0.norm1.weight"] < order["head.weight"]
    assert len(timm.models.group_parameters(model, model.group_matcher(coarse=True))) == 6


def test_layer_scales_do_not_decay() -> None:
    model = small(layer_scale=0.1)
    assert "stages.0.0.gamma1" in model.no_weight_decay()
    assert all(parameter.ndim == 1 for name, parameter in model.named_parameters() if name in model.no_weight_decay())


def swin_names(name: str) -> str:
    if name.startswith("stages."):
        stages, stage, index, rest = name.split(".", 3)
        name = ".".join([stages, stage, "blocks", index, rest])
    return name.replace("mlp.3.", "mlp.2.")


def refactored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the authors' STL-nchw has it: 1 x 1 convolutions with other names."""
    found = {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and not name.startswith("head."):
            tensor = tensor[:, :, None, None]
        found[swin_names(name).replace("qkv.qkv", "qkv_linear").replace("attn.wo", "attn.output_linear")] = tensor
    return found


@pytest.mark.parametrize(
    "published",
    [
        lambda state: {"epoch": 300, "model": state},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {swin_names(name): tensor for name, tensor in state.items()}},
        lambda state: {"model": refactored(state)},
        lambda state: {"state_dict": {f"backbone.{name}": tensor for name, tensor in state.items()}},
        lambda state: state,
    ],
    ids=["authors", "parallel", "stl", "stl_nchw", "downstream", "ours"],
)
def test_every_published_naming_loads(published: object) -> None:
    model = small(layer_scale=0.1)
    state = model.state_dict()
    found = checkpoint_filter_fn(published(state), model)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_file_of_the_authors_loads_through_timm(tmp_path: object) -> None:
    source = timm.create_model("biformer_tiny", depths=(1, 1, 1, 1))
    torch.save({"model": source.state_dict()}, tmp_path / "biformer_tiny_best.pth")
    loaded = timm.create_model(
        "biformer_tiny",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "biformer_tiny_best.pth")},
        num_classes=3,
        depths=(1, 1, 1, 1),
    )
    torch.testing.assert_close(loaded.stages[0][0].attn.wo.weight, source.stages[0][0].attn.wo.weight)
    assert loaded.head.out_features == 3


def test_a_saved_folder_loads_bit_equal(tmp_path: object) -> None:
    model = timm.create_model("biformer_stl_nchw", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), head_dim=8, num_classes=3)
    model.eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(again(images(64, 64)), model(images(64, 64)))


def test_it_exports_with_any_batch() -> None:
    model = small()
    with torch.no_grad():
        exported = torch.export.export(
            model, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        ).module()
        torch.testing.assert_close(exported(images(batch=3)), model(images(batch=3)))


def test_a_block_without_norms_before_puts_them_after() -> None:
    block, x = Block(8, num_heads=2, pre_norm=False), torch.randn(2, 8, 9, 7)
    normalised = block(x).permute(0, 2, 3, 1)
    torch.testing.assert_close(normalised.mean(-1), torch.zeros(2, 9, 7), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.var(-1, correction=0), torch.ones(2, 9, 7), rtol=0, atol=1e-2)
