import math

import pytest
import timm
import torch
from torch import Tensor

from regard.vision.backbones import sparsifiner
from regard.vision.backbones.sparsifiner import Sparsifiner, checkpoint_filter_fn
from regard.vision.backbones.sparsifiner_tokens import Left

NAMES = {
    "sparsifiner_deit_tiny_patch16_224": 5_918_632,
    "sparsifiner_deit_small_patch16_224": 22_251_880,
    "sparsifiner_deit_base_patch16_224": 86_768_872,
    "sparsifiner_lvvit_small_patch16_224": 26_420_112,
    "sparsifiner_lvvit_medium_patch16_224": 56_165_904,
}
TINY = {"img_size": (48, 80), "embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 5}
DROPPING = {"token_keep_rates": [1.0, 0.7, 0.7, 0.4]}


def small(name: str = "sparsifiner_deit_tiny_patch16_224", **options: object) -> Sparsifiner:
    torch.manual_seed(0)
    model = timm.create_model(name, **(TINY | options)).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def images(height: int = 48, width: int = 80, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "parameters"), NAMES.items())
def test_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)
    assert sparsifiner.TOP1 == {}


def test_removed_tokens_change_no_number_and_clean_ones_do() -> None:
    reference, removed, clean = (
        small(**DROPPING, token_mode=mode).requires_grad_(False) for mode in ("reference", "removed", "clean")
    )
    outs, valid = reference.run_blocks(images())
    same, same_valid = removed.run_blocks(images())
    assert torch.equal(valid, same_valid)
    for out, other in zip(outs, same, strict=True):
        torch.testing.assert_close(out, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reference(images()), removed(images()), rtol=1e-4, atol=1e-4)
    assert (reference(images()) - clean(images())).abs().max() > 1e-3


def test_tokens_really_go() -> None:
    model, seen = small(**DROPPING, token_mode="clean"), []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(images())
    assert seen == [16, 16, 1 + math.ceil(0.7 * 15), 1 + math.ceil(0.7 * 15)]
    _, valid = model.run_blocks(images())
    assert (valid.sum(dim=1) == 1 + 6).all()


@pytest.mark.parametrize("mode", ["reference", "removed", "clean"])
def test_a_batch_gives_what_its_images_give(mode: str) -> None:
    model = small(**DROPPING, token_mode=mode).requires_grad_(False)
    single = torch.cat([model(one[None]) for one in images(batch=3)])
    torch.testing.assert_close(model(images(batch=3)), single, rtol=1e-4, atol=1e-4)


def test_a_call_leaves_no_trace() -> None:
    model = small(**DROPPING)
    first = model(images())
    assert torch.equal(model(images()), first)
    assert {block.attn.mask_predictor.budget(16) for block in model.blocks} == {4}


def test_one_rate_is_the_papers_schedule() -> None:
    with torch.device("meta"):
        model = timm.create_model("sparsifiner_deit_small_patch16_224", token_keep_rates=0.7)
    assert model.token_keep_rates == [1.0] * 3 + [0.7] * 3 + [0.7**2] * 3 + [0.7**3] * 3


def test_the_class_token_attends_to_everything() -> None:
    attention = small().blocks[0].attn
    x = torch.randn(2, 16, 24)
    _, seen = attention.attend(x)
    assert (seen > 0).all()
    torch.testing.assert_close(seen.sum(dim=-1), torch.ones(2, 1))
    _, less = attention.attend(x, Left(10, 5))
    assert (less.sum(dim=-1) < 1).all()


@pytest.mark.parametrize("name", ["sparsifiner_deit_tiny_patch16_224", "sparsifiner_lvvit_small_patch16_224"])
def test_a_dense_file_loads_with_fresh_predictors(name: str, tmp_path: object) -> None:
    model = small(name)
    dense = {key: value for key, value in model.state_dict().items() if "mask_predictor" not in key}
    body = {key: value for key, value in dense.items() if "head" not in key}  # timm leaves out heads of other sizes
    wrapped = {f"module.{key}": value for key, value in dense.items()}
    for number, published in enumerate((dense, {"model": dense}, {"state_dict": wrapped})):
        path = tmp_path / f"{number}.pth"
        torch.save(published, path)
        overlay = {"file": str(path)}
        loaded = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **TINY)
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in body.items())
    other = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **(TINY | {"num_classes": 3}))
    assert other(images()).shape == (2, 3)


def test_a_file_for_another_image_size_loads() -> None:
    source, model = small(img_size=48), small(img_size=64, predictor={"reduce_n": 17})
    model.load_state_dict(checkpoint_filter_fn(source.state_dict(), model))
    assert model(images(64, 64)).shape == (2, 5)
    with pytest.raises(ValueError, match="reduce_n"):
        checkpoint_filter_fn(source.state_dict(), small(img_size=64))


def test_the_image_size_can_change() -> None:
    model = small()
    model.set_input_size((64, 64))
    assert model(images(64, 64)).shape == (2, 5)
    assert len(model.blocks[0].attn.mask_predictor.proj_n) == 17


def test_intermediates_are_maps_with_zeros_where_tokens_went() -> None:
    model = small(**DROPPING, token_mode="clean")
    last, maps = model.forward_intermediates(images(), indices=[0, 3])
    assert [tuple(found.shape) for found in maps] == [(2, 24, 3, 5)] * 2
    assert (maps[1].abs().sum(dim=1) > 0).sum(dim=(1, 2)).tolist() == [6, 6]
    torch.testing.assert_close(last, model.forward_features(images()))
    early = model.forward_intermediates(images(), indices=[0], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], maps[0])


def test_features_only_gives_maps() -> None:
    model = timm.create_model("sparsifiner_deit_tiny_patch16_224", features_only=True, **TINY).eval()
    assert [tuple(found.shape) for found in model(images())] == [(2, 24, 3, 5)] * 3
    assert model.feature_info.channels() == [24] * 3


@pytest.mark.parametrize("name", ["sparsifiner_deit_tiny_patch16_224", "sparsifiner_lvvit_small_patch16_224"])
def test_the_head_can_be_replaced(name: str) -> None:
    model = small(name)
    model.reset_classifier(7)
    assert model(images()).shape == (2, 7)
    assert model.get_classifier() is model.head
    model.reset_classifier(0)
    assert model(images()).shape == (2, 24)
    assert {"pos_embed", "cls_token"} <= model.no_weight_decay()


def test_the_auxiliary_head_counts_at_inference_only() -> None:
    model = small("sparsifiner_lvvit_small_patch16_224")
    features = model.forward_features(images())
    patches = model.aux_head(features[:, 1:]).amax(dim=1)
    torch.testing.assert_close(model(images()), model.head(features[:, 0]) + 0.5 * patches)
    torch.testing.assert_close(model.train().forward_head(features), model.head(features[:, 0]))


@pytest.mark.parametrize("mode", ["reference", "removed", "clean"])
@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.full)])
def test_everything_learns_in_one_step(mode: str, checkpointing: bool) -> None:
    model = small(**DROPPING, token_mode=mode).train()
    model.set_grad_checkpointing(checkpointing)
    model(images()).square().sum().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent


def test_layers_are_grouped_from_the_stem_up() -> None:
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher())
    order = {name: number for number, names in groups.items() for name in names}
    assert order["pos_embed"] < order["blocks.0.attn.mask_predictor.proj_n"] < order["blocks.1.attn.qkv.weight"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.full),
        DROPPING | {"token_mode": "clean"},
        pytest.param(DROPPING, marks=pytest.mark.full),
    ],
)
def test_it_exports_with_any_batch(options: dict[str, object]) -> None:
    model = small(**options).requires_grad_(False)
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(model, (images(),), dynamic_shapes=(batch,), strict=False).module()
    torch.testing.assert_close(exported(images(batch=3)), model(images(batch=3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_keep_rates": [0.5]}, "4 shares"),
        ({"token_keep_rates": [0.5, 0.6, 0.7, 0.8]}, "does not come back"),
        (DROPPING | {"class_token": False, "global_pool": "avg"}, "needs a class token"),
        ({"dynamic_img_size": True}, "dynamic_img_size does not go"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
