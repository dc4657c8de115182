import pytest
import timm
import torch
from torch import Tensor, nn

from regard.vision.backbones import vig
from regard.vision.backbones.vig import PatchEmbed, ViG, checkpoint_filter_fn, resize_positions


def small(**options: object) -> ViG:
    torch.manual_seed(0)
    return ViG(**({"num_classes": 5, "embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 64} | options)).eval()


def images(height: int = 75, width: int = 101, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "parameters"), [("vig_tiny", 5_834_536), ("vig_small", 22_615_144), ("vig_base", 89_022_184)]
)
def test_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.blocks[0].attn.num_heads * 64 == model.embed_dim
    assert model.blocks[0].attn.out_act == (name == "vig_tiny")


def test_preprocessing_is_that_of_the_authors() -> None:
    with torch.device("meta"):
        cfg = timm.create_model("vig_tiny").pretrained_cfg
    assert (cfg["crop_pct"], cfg["interpolation"], cfg["input_size"]) == (0.875, "bicubic", (3, 224, 224))
    assert cfg["url"].endswith("vig_t_77p2acc.pth")


def test_every_published_accuracy_belongs_to_published_weights() -> None:
    assert set(vig.TOP1) == {name for name in timm.list_pretrained("vig_*") if not name.startswith("vig_h")}


@pytest.mark.parametrize(("side", "tokens"), [(224, 14), (75, 5), (101, 6), (64, 4)])
def test_the_embedding_predicts_its_grid(side: int, tokens: int) -> None:
    embed = PatchEmbed(side, 16, 3, 8)
    assert embed.dynamic_feat_size((side, side)) == (tokens, tokens)
    assert embed(images(side, side, 1)).shape == (1, tokens, tokens, 8)


def test_an_odd_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size 7"):
        small(patch_size=7)


def test_images_of_any_size_are_taken() -> None:
    model = small()
    for height, width in ((64, 64), (75, 101), (16, 48)):
        assert model(images(height, width)).shape == (2, 5)


def test_another_usual_size_is_the_same_as_resizing_on_the_way() -> None:
    model = small()
    expected = model(images(80, 112))
    model.set_input_size((80, 112))
    assert model.pos_embed.shape == (1, 35, 16)
    torch.testing.assert_close(model(images(80, 112)), expected)
    with pytest.raises(ValueError, match="stay 16"):
        model.set_input_size(patch_size=8)


def test_intermediates_end_in_the_features() -> None:
    model = small()
    features = model.forward_features(images())
    last, maps = model.forward_intermediates(images(), norm=True)
    assert [tuple(one.shape) for one in maps] == [(2, 16, 5, 6)] * 3
    torch.testing.assert_close(last, features)
    torch.testing.assert_close(maps[-1].flatten(2).mT, features)
    rows = model.forward_intermediates(images(), indices=[2], norm=True, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(rows[0], features)
    both = model.forward_intermediates(images(), output_dict=True)
    torch.testing.assert_close(both["image_features"], features)
    with pytest.raises(ValueError, match="NHWC"):
        model.forward_intermediates(images(), output_fmt="NHWC")


def test_features_come_out_through_timm() -> None:
    model = timm.create_model("vig_tiny", features_only=True, embed_dim=16, num_heads=2, depth=3, img_size=64).eval()
    assert [tuple(one.shape) for one in model(images())] == [(2, 16, 5, 6)] * 3
    assert model.feature_info.reduction() == [16] * 3


def test_the_head_can_be_replaced() -> None:
    model = small()
    model.reset_classifier(7, "max")
    assert model(images()).shape == (2, 7)
    assert model.get_classifier() is model.head
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(images()), model.forward_features(images()).mean(dim=1))


def test_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        small()(images(), is_causal=True)


def test_checkpointing_changes_neither_logits_nor_gradients() -> None:
    plain, saving = small(init_values=0.1), small(init_values=0.1)
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        model(images()).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_of_training_lowers_the_loss() -> None:
    model = small(drop_path_rate=0.1, dtype=torch.float32).train()
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
    assert order["pos_embed"] == order["patch_embed.proj.0.weight"] < order["blocks.0.attn.o_proj.weight"]
    assert order["blocks.0.attn_norm.weight"] < order["blocks.2.mlp.down_proj.weight"] < order["head.weight"]
    assert model.no_weight_decay() >= {"pos_embed"}


@pytest.mark.parametrize(
    "published",
    [
        lambda state: state,
        lambda state: {"epoch": 300, "model": state},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {
            name: tensor[..., None, None] if name.endswith("_proj.weight") else tensor for name, tensor in state.items()
        },
    ],
    ids=["bare", "authors", "parallel", "convolutions"],
)
def test_every_naming_loads(published: object) -> None:
    model = small()
    state = model.state_dict()
    found = checkpoint_filter_fn(published(state), model)
    assert list(found) == list(state)
    for name in state:
        torch.testing.assert_close(found[name], state[name])


def test_a_file_of_the_authors_loads_through_timm_at_another_size(tmp_path: object) -> None:
    source = small(num_classes=1000)
    torch.save({"model": source.state_dict()}, tmp_path / "vig.pth")
    loaded = timm.create_model(
        "vig_tiny",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "vig.pth")},
        **{"num_classes": 3, "embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": (80, 112), "in_chans": 1},
    )
    torch.testing.assert_close(loaded.pos_embed, resize_positions(source.pos_embed, (4, 4), (5, 7)))
    torch.testing.assert_close(loaded.blocks[1].attn.g_norm.weight, source.blocks[1].attn.g_norm.weight)
    assert loaded(images()[:, :1]).shape == (2, 3)


def test_it_takes_half_precision_and_other_channels() -> None:
    model = small(in_chans=4, dtype=torch.bfloat16)
    assert model(torch.randn(1, 4, 33, 50, dtype=torch.bfloat16)).dtype == torch.bfloat16
