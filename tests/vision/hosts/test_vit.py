import copy

import pytest
import timm
import torch

from regard.vision import build_attention, create_model
from regard.vision.hosts.vit import Grid, PrefixMixer

TINY = {"img_size": (32, 80), "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
NO_PREFIX = {"class_token": False, "global_pool": "avg"}
REGISTERS = {"reg_tokens": 4}


def vit(attention: str | None = "van", **kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("vit_tiny_patch16_224", attention=attention, **(TINY | kwargs)).eval()


def image(height: int = 32, width: int = 80) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 3, height, width)


@pytest.mark.parametrize("attention", ["van", "ela"])
def test_without_prefix_tokens_the_block_stands_alone(attention: str) -> None:
    attn = vit(attention, **NO_PREFIX).blocks[0].attn
    tokens = torch.randn(2, 10, 48)
    bare = build_attention(attention, 48)
    bare.load_state_dict(attn.attention.state_dict())
    softmax = {name for name, _ in attn.named_parameters() if not name.startswith("attention.")}
    if attention == "van":
        assert not softmax
        expected = bare(tokens.unflatten(1, (2, 5))).flatten(1, 2)
    else:  # a gate follows the host's attention
        assert softmax == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
        host = timm.layers.Attention(48, num_heads=3, qkv_bias=True)
        host.load_state_dict(attn.state_dict(), strict=False)
        expected = bare(host(tokens).unflatten(1, (2, 5))).flatten(1, 2)
    torch.testing.assert_close(attn(tokens), expected, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", [{}, REGISTERS, NO_PREFIX])
def test_softmax_is_the_host_itself(prefix: dict) -> None:
    ours, host = vit("softmax", **prefix), vit(None, **prefix)
    ours.load_state_dict(host.state_dict())
    assert torch.equal(ours(image()), host(image()))


@pytest.mark.parametrize("prefix", [{}, REGISTERS])
def test_prefix_tokens_start_as_in_the_host(prefix: dict) -> None:
    host, ours = vit(None, **prefix), vit("van", **prefix)
    ours.load_state_dict(host.state_dict(), strict=False)
    tokens = torch.randn(2, host.num_prefix_tokens + 10, 48)
    first = slice(host.num_prefix_tokens)
    torch.testing.assert_close(ours.blocks[0].attn(tokens)[:, first], host.blocks[0].attn(tokens)[:, first])


@pytest.mark.parametrize("prefix", [{}, REGISTERS])
@pytest.mark.parametrize("attention", ["van", "softmax", "ela"])
def test_prefix_tokens_read_the_patches(prefix: dict, attention: str) -> None:
    attn, first = vit(attention, **prefix).blocks[0].attn, 1 + prefix.get("reg_tokens", 0)
    tokens = torch.randn(1, first + 10, 48)
    other = tokens.clone()
    other[:, -1] += 1
    assert not torch.allclose(attn(tokens)[:, :first], attn(other)[:, :first])


def test_patches_read_the_prefix_once_gamma_has_grown() -> None:
    attn = vit("van", **REGISTERS).blocks[0].attn
    tokens = torch.randn(1, 15, 48)
    other = tokens.clone()
    other[:, 4] += 1  # the last register
    torch.testing.assert_close(attn(tokens)[:, 5:], attn(other)[:, 5:])
    torch.nn.init.ones_(attn.gamma)
    assert not torch.allclose(attn(tokens)[:, 5:], attn(other)[:, 5:])


def test_a_block_that_takes_context_gets_the_prefix() -> None:
    grid = Grid(prefix=2, fixed=(2, 5))
    attn = PrefixMixer(48, attention=build_attention("softmax", 48), grid=grid, num_heads=3, qkv_bias=True)
    assert attn.gamma is None
    tokens = torch.randn(1, 12, 48)
    expected = attn.attention(tokens[:, 2:].unflatten(1, (2, 5)), context=tokens[:, :2]).flatten(1, 2)
    torch.testing.assert_close(attn(tokens)[:, 2:], expected)


def test_a_gate_leaves_the_prefix_alone() -> None:
    host, ours = vit(None), vit("ela")
    ours.load_state_dict(host.state_dict(), strict=False)
    tokens = torch.randn(2, 11, 48)
    torch.testing.assert_close(ours.blocks[0].attn(tokens)[:, :1], host.blocks[0].attn(tokens)[:, :1])


def test_the_two_prefix_tokens_of_a_distilled_host_are_counted() -> None:
    model = create_model("deit_tiny_distilled_patch16_224", attention="van", **TINY)
    assert model.blocks[0].attn.grid.prefix == 2
    assert model(image()).shape == (1, 5)


def test_prefix_attention_takes_the_settings_of_the_host() -> None:
    attn = vit("van", qkv_bias=False, qk_norm=True, attn_drop_rate=0.1, proj_drop_rate=0.2).blocks[0].attn
    assert attn.qkv.bias is None
    assert attn.q_norm.weight.shape == (16,)
    assert (attn.attn_drop.p, attn.proj_drop.p) == (0.1, 0.2)


def test_a_size_may_be_set_later() -> None:
    model, wide = vit(**NO_PREFIX), vit(img_size=(64, 48), **NO_PREFIX)
    model.set_input_size((64, 48))
    assert model.blocks[1].attn.grid.fixed == (4, 3)
    wide.load_state_dict(model.state_dict())
    assert torch.equal(model(image(64, 48)), wide(image(64, 48)))


@pytest.mark.parametrize("attention", ["van", "ela"])
def test_any_size_goes_through_a_dynamic_host(attention: str) -> None:
    model = vit(attention, dynamic_img_size=True)
    for height, width in ((32, 80), (80, 32), (64, 48)):
        fixed = vit(attention, img_size=(height, width))
        with torch.no_grad():
            for resampled in (model, fixed):
                resampled.pos_embed.zero_()
        fixed.load_state_dict(model.state_dict() | {"pos_embed": fixed.pos_embed})
        assert torch.equal(model(image(height, width)), fixed(image(height, width)))


def test_a_dynamic_host_may_pad_the_image() -> None:
    model = vit(dynamic_img_size=True, dynamic_img_pad=True)
    padded = torch.nn.functional.pad(image(35, 50), (0, 14, 0, 13))
    assert torch.equal(model(image(35, 50)), model(padded))


def test_a_copy_has_a_grid_of_its_own() -> None:
    model = vit(dynamic_img_size=True)
    model(image(64, 48))
    other = copy.deepcopy(model)
    grids = {id(block.attn.grid) for block in other.blocks} | {id(other.patch_embed.grid)}
    assert len(grids) == 1
    assert other.patch_embed.grid is not model.patch_embed.grid
    assert other.patch_embed.grid.live is None


def test_tokens_that_do_not_fit_the_grid_are_named() -> None:
    with pytest.raises(ValueError, match="12 tokens are not 1 of prefix and 2 x 5 patches"):
        vit().blocks[0].attn(torch.randn(1, 12, 48))


def test_feature_maps_keep_the_shape_of_the_grid() -> None:
    maps = vit(depth=3).forward_intermediates(image(), intermediates_only=True)
    assert [tuple(feature.shape) for feature in maps] == [(1, 48, 2, 5)] * 3
    features = vit(depth=3, features_only=True, out_indices=(0, 2))(image())
    assert [tuple(feature.shape) for feature in features] == [(1, 48, 2, 5)] * 2


@pytest.mark.parametrize("dynamic", [False, True])
def test_grad_checkpointing_changes_nothing(dynamic: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = vit(dynamic_img_size=dynamic).train()
        model.set_grad_checkpointing(checkpointing)
        model(image()).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_layer_decay_reaches_the_block() -> None:
    model = vit("van")
    optimizer = timm.optim.create_optimizer_v2(model, lr=1.0, layer_decay=0.5, weight_decay=0.1)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    weight = model.blocks[0].attn.attention.proj_1.weight
    assert scale[id(weight)] == scale[id(model.blocks[0].mlp.fc1.weight)] < scale[id(model.head.weight)]
    assert decay[id(weight)] == 0.1
    assert decay[id(model.blocks[0].attn.gamma)] == 0


def test_an_attention_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="does not accept attn_mask"):
        vit()(image(), attn_mask=torch.zeros(11, 11))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.5}, "leaves gaps in the grid.*drop_path_rate"),
        ("vit_tiny_patch16_224", {"attention_stages": [0]}, "a ViT has none"),
        ("vit_tiny_patch16_224", {"use_naflex": True}, "became a NaFlexVit.*vit_small_patch16_224"),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fix_init": True}, "fix_init"),
        ("vit_small_patch16_18x2_224", {}, "ParallelThingsBlock.*deit3_small"),
        ("vit_base_patch16_xp_224", {}, "ParallelScalingBlock"),
        ("vit_base_patch16_rpn_224", {}, "ResPostBlock"),
        ("vit_dwee_patch16_reg1_gap_256", {}, "DiffAttention"),
    ],
)
def test_hosts_that_cannot_take_a_block_say_why(name: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, attention="van", depth=2, **settings)


def test_softmax_options_belong_to_the_host() -> None:
    with pytest.raises(ValueError, match="arguments of the host"):
        vit("softmax", attention_options={"num_heads": 2})
