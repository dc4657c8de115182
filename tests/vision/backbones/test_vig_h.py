import pytest
import timm
import torch
from torch import Tensor, nn

from regard.vision.backbones import vig_h
from regard.vision.backbones.vig_h import Block, ViGH, checkpoint_filter_fn

SMALL = {"dims": (8, 16, 24, 32), "depths": (2, 1, 1, 1), "num_heads": (1, 2, 3, 4)}


def small(**options: object) -> ViGH:
    torch.manual_seed(0)
    return ViGH(**({"num_classes": 5} | SMALL | options)).eval()


def images(height: int = 49, width: int = 66, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "parameters"), [("vig_h_tiny", 28_600_680), ("vig_h_small", 50_051_688), ("vig_h_base", 88_904_360)]
)
def test_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    for stage in model.layers:
        assert stage.blocks[0].op.num_heads * 32 == stage.blocks[0].op.o_proj.out_features


@pytest.mark.parametrize(("dim", "hidden"), [(96, 256), (192, 512), (128, 352), (512, 1376), (1024, 2752)])
def test_the_mlp_is_as_wide_as_published(dim: int, hidden: int) -> None:
    with torch.device("meta"):
        assert Block(dim, num_heads=1).mlp.fc2.in_features == hidden


def test_every_published_accuracy_belongs_to_published_weights() -> None:
    assert set(vig_h.TOP1) == set(timm.list_pretrained("vig_h_*"))


def test_features_of_all_stages_come_out_and_round_up() -> None:
    model = timm.create_model("vig_h_tiny", features_only=True, **SMALL).eval()
    assert [tuple(one.shape[1:]) for one in model(images(70, 90))] == [
        (8, 18, 23),
        (16, 9, 12),
        (24, 5, 6),
        (32, 3, 3),
    ]
    assert model.feature_info.channels() == [8, 16, 24, 32]
    assert model.feature_info.reduction() == [4, 8, 16, 32]


def test_features_of_some_stages_prune_the_rest() -> None:
    model = timm.create_model("vig_h_tiny", features_only=True, out_indices=(0, 1), **SMALL)
    assert len(model(images(32, 32))) == 2
    assert not any("layers.2" in name for name, _ in model.named_parameters())


def test_intermediates_end_in_the_features() -> None:
    model = small()
    last, maps = model.forward_intermediates(images(), norm=True)
    torch.testing.assert_close(maps[-1], last)
    torch.testing.assert_close(model.forward_features(images()), last)
    early = model.forward_intermediates(images(), indices=[1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], maps[1])
    with pytest.raises(ValueError, match="NLC"):
        model.forward_intermediates(images(), output_fmt="NLC")


def test_the_head_can_be_replaced() -> None:
    model = small()
    model.reset_classifier(7, "max")
    assert model(images()).shape == (2, 7)
    assert model.get_classifier() is model.classifier.head
    model.reset_classifier(0)
    torch.testing.assert_close(model(images()), model.forward_head(model.forward_features(images()), pre_logits=True))
    model.reset_classifier(0, "")
    assert model(images()).shape == (2, 32, 2, 3)


def test_checkpointing_changes_neither_logits_nor_gradients() -> None:
    plain, saving = small(), small()
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        model(images()).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_of_training_lowers_the_loss() -> None:
    model = small(drop_path_rate=0.1).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        torch.manual_seed(0)
        loss = nn.functional.cross_entropy(model(images()), torch.tensor([0, 3]))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def test_layers_are_grouped_from_the_stem_up() -> None:
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher())
    order = {name: number for number, names in groups.items() for name in names}
    assert (
        order["patch_embed.0.weight"] < order["layers.0.blocks.0.norm.weight"] < order["layers.0.blocks.1.norm.weight"]
    )
    assert order["layers.0.downsample.1.weight"] <= order["layers.1.blocks.0.norm.weight"]
    assert order["layers.3.blocks.0.norm.weight"] <= order["classifier.norm.weight"] < order["classifier.head.weight"]
    assert len(timm.models.group_parameters(model, model.group_matcher(coarse=True))) == 6


def older(name: str) -> str:
    name = name.replace("classifier.", "")
    return name.replace(".norm.", ".ln_1.").replace(".op.", ".self_attention.")


@pytest.mark.parametrize(
    "published",
    [
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {older(name): tensor for name, tensor in state.items()}},
        lambda state: {
            name: tensor[..., None, None] if "mlp" in name or "qkv" in name else tensor
            for name, tensor in state.items()
        },
    ],
    ids=["authors", "parallel", "older", "convolutions"],
)
def test_every_naming_loads(published: object) -> None:
    model = small()
    state = model.state_dict()
    found = checkpoint_filter_fn(published(state), model)
    assert list(found) == list(state)
    for name in state:
        torch.testing.assert_close(found[name], state[name])


def test_a_file_of_the_authors_loads_through_timm(tmp_path: object) -> None:
    source = small(num_classes=1000)
    torch.save({"model": source.state_dict()}, tmp_path / "vig_h.pth")
    overlay = {"file": str(tmp_path / "vig_h.pth")}
    loaded = timm.create_model("vig_h_tiny", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3, **SMALL)
    torch.testing.assert_close(
        loaded.patch_embed.get_submodule("5").weight, source.patch_embed.get_submodule("5").weight
    )
    assert loaded.get_classifier().out_features == 3


def test_other_channels_and_types_are_taken() -> None:
    model = small(in_chans=4, dtype=torch.bfloat16)
    assert model(torch.randn(1, 4, 33, 33, dtype=torch.bfloat16)).dtype == torch.bfloat16
