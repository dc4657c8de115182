import copy
import logging
import pickle

import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention import biformer
from regard.vision.attention.biformer import BiLevelRoutingAttention
from regard.vision.attention.lepe import LePEAttention
from regard.vision.attention.plain.biformer import PlainBiLevelRoutingAttention

PADDINGS = ["mask", "input", "projected"]
SIZES = [
    pytest.param(*(1, 1), marks=pytest.mark.full),
    pytest.param(*(1, 9), marks=pytest.mark.full),
    (5, 3),
    (13, 17),
    pytest.param(*(21, 20), marks=pytest.mark.full),
]
#: Regions on a side and how many are attended to: few, one, most, and more than there are.
CHOICES = [
    (7, 4),
    pytest.param(*(4, 1), marks=pytest.mark.full),
    (2, 3),
    pytest.param(*(3, 16), marks=pytest.mark.full),
]


def image(height: int = 13, width: int = 17, dim: int = 16, batch: int = 3) -> Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(0))


def spread(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def block(dim: int = 16, **options: object) -> BiLevelRoutingAttention:
    return spread(BiLevelRoutingAttention(dim, **({"num_heads": 2, "n_win": 4, "topk": 3} | options)))


def pair(**options: object) -> tuple[BiLevelRoutingAttention, PlainBiLevelRoutingAttention]:
    ours = block(**options)
    plain = PlainBiLevelRoutingAttention(16, **({"num_heads": 2, "n_win": 4, "topk": 3} | options))
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("n_win", "topk"), CHOICES)
@pytest.mark.parametrize("dense_tokens", [0, 1024], ids=["gathered", "dense"])
def test_it_equals_the_plain_formulation(
    height: int, width: int, padding: str, n_win: int, topk: int, dense_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(biformer, "DENSE_TOKENS", dense_tokens)
    ours, plain = pair(padding=padding, n_win=n_win, topk=topk)
    x = image(height, width)
    expected = by_plain(plain, x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("planar", [False, True], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("context", [0, 2])
def test_chunks_give_the_same_numbers(planar: bool, context: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = block(n_win=7)
    x, more = image(batch=5), torch.randn(5, context, 16) if context else None
    if planar:
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    with torch.no_grad():
        whole = ours(x, context=more)
        monkeypatch.setattr(biformer, "CACHE_NUMEL", 2 * x[0].numel())
        monkeypatch.setattr(biformer, "GATHERED", 2000)
        torch.testing.assert_close(ours(x, context=more), whole)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("topk", [1, 3, 16])
def test_small_batches_come_out_as_they_went_in(batch: int, topk: int) -> None:
    with torch.no_grad():
        assert block(topk=topk)(image(batch=batch)).shape == (batch, 13, 17, 16)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("n_win", "topk"), [(7, 4), (2, 3)])
def test_gradients_equal_those_of_the_plain_formulation(padding: str, n_win: int, topk: int) -> None:
    ours, plain = pair(padding=padding, n_win=n_win, topk=topk)
    x = image()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (ours(x) * weight).sum().backward()
    (by_plain(plain, x) * weight).sum().backward()
    theirs = dict(plain.named_parameters())
    for name, mine in ours.named_parameters():
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs[name].grad, rtol=1e-3, atol=1e-3)


def test_paddings_agree_where_nothing_is_padded() -> None:
    x = image(12, 20)
    first, *others = (block(padding=padding)(x) for padding in PADDINGS)
    for other in others:
        torch.testing.assert_close(other, first)


def test_attention_to_every_region_is_softmax_attention() -> None:
    ours, x = block(topk=16, side_dwconv=0, padding="mask"), image()
    query, key, value = ours.qkv["qkv"](x.flatten(1, 2)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    mixed = (ours.scale * query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(ours(x), ours.wo(mixed.transpose(1, 2).flatten(2)).view_as(x), rtol=1e-4, atol=1e-4)


def test_a_region_sees_only_the_regions_it_is_routed_to() -> None:
    ours, x = block(side_dwconv=0).double(), image(16, 16, batch=1).double().requires_grad_()
    regions = ours.attention_weights(x).regions[0]
    ours(x)[0, :4, :4].sum().backward()
    seen = x.grad[0].abs().sum(-1).view(4, 4, 4, 4).sum((1, 3)).flatten().nonzero().flatten()
    assert set(seen.tolist()) == {0, *regions[0].tolist()}


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("padding", PADDINGS)
def test_weights_sum_to_one_and_explain_the_output(context: int, padding: str) -> None:
    ours, x = block(side_dwconv=0, param_attention="qkv", padding=padding), image()
    more = torch.randn(3, context, 16) if context else None
    regions, region_weights, weights = ours.attention_weights(x, context=more)
    rows = regions.shape[1]
    tokens = weights.shape[3]
    assert regions.shape == region_weights.shape == (3, rows, 3)
    assert weights.shape == (3, 2, rows, tokens, 3 * tokens + context)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, rows, tokens))
    torch.testing.assert_close(region_weights.sum(-1), torch.ones(3, rows))
    cut, qkv, _ = ours._project(x)
    value = ours._by_region(qkv, cut)[2]
    first = value[0, 1, regions[0, 0]].flatten(0, 1)
    if more is not None:
        first = torch.cat([first, ours._context(more)[1][0, 1]])
    torch.testing.assert_close((weights[0, 1, 0] @ first)[0], ours(x, context=more)[0, 0, 0, 8:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n_win", "topk"), [(7, 4), (2, 3), (2, 4)])
@pytest.mark.parametrize("soft", [False, True])
def test_context_is_a_key_for_every_position_and_never_routes(n_win: int, topk: int, soft: bool) -> None:
    ours = block(n_win=n_win, topk=topk, soft_routing=soft)
    x, context = image(), torch.randn(3, 2, 16, requires_grad=True)
    assert torch.equal(ours.attention_weights(x, context).regions, ours.attention_weights(x).regions)
    out = ours(x, context=context)
    assert (out - ours(x)).abs().amin(dim=(0, 3)).all()
    out.sum().backward()
    assert context.grad.abs().sum(-1).all()


def test_what_lies_outside_is_no_key() -> None:
    ours, x = block(n_win=2, topk=2), image(13, 17)
    with torch.no_grad():
        ours.qkv["qkv"].bias.fill_(50.0)  # a padding token would now have large queries, keys and values
    weights = ours.attention_weights(x).weights  # regions of 7 x 9 tokens, 14 x 18 in all
    assert weights[:, :, 0].unflatten(-1, (2, 63)).sum(-1).shape == (3, 2, 63, 2)
    regions = ours.attention_weights(x).regions
    last_columns = torch.arange(63).view(7, 9)[:, -1]
    for image_index in range(3):
        for index, region in enumerate(regions[image_index, 0].tolist()):
            outside = weights[image_index, 0, 0][:, index * 63 + last_columns]
            assert (outside == 0).all() == (region % 2 == 1)


@pytest.mark.parametrize("mode", ["ada_avgpool", "ada_maxpool", "avgpool", "maxpool"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_pooled_keys_learn_and_ignore_what_is_masked(mode: str, padding: str) -> None:
    ours = block(kv_downsample_mode=mode, kv_per_win=2, kv_downsample_ratio=2, padding=padding)
    x = image(16, 13)
    out = ours(x)
    assert out.isfinite().all()
    out.square().sum().backward()
    assert all(parameter.grad.any() for parameter in ours.parameters())
    keys = ours.attention_weights(x).weights.shape[-1]
    assert keys in (3 * 4, 3 * 2)  # 3 regions of 4 x 4 or 4 x 3 tokens


def test_pooling_by_one_changes_nothing() -> None:
    x = image(13, 17)
    for mode in ("avgpool", "maxpool"):
        torch.testing.assert_close(block(kv_downsample_mode=mode, kv_downsample_ratio=1)(x), block()(x))


def test_gradients_reach_the_routing_only_if_asked() -> None:
    x = image()
    learning = block(soft_routing=True, diff_routing=True, param_routing=True)
    learning(x).sum().backward()
    assert learning.router["emb"].weight.grad.any()
    with pytest.raises(ValueError, match="no gradient"):
        block(diff_routing=True)
    with pytest.raises(ValueError, match="diff_routing=True"):
        block(soft_routing=True, param_routing=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "dim 16 does not divide by num_heads 3"),
        ({"qk_dim": 7}, "qk_dim 7 does not divide"),
        ({"topk": 0}, "topk is 0"),
        ({"n_win": 0}, "n_win 0"),
        ({"side_dwconv": 4}, "side_dwconv 4 is even"),
        ({"kv_downsample_mode": "avgpool", "kv_downsample_ratio": 0}, "at least 1"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block(**options)


def test_too_many_regions_are_clamped_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    ours, plain = pair(n_win=2, topk=9)
    x = image()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-4)
    (message,) = caplog.messages
    assert message == "topk 9 exceeds the 2 x 2 regions of a 13 x 17 map: all of them are attended to"


@pytest.mark.parametrize(("side", "regions"), [(3, 1), (14, 2), (28, 4), (56, 7)])
def test_regions_can_follow_the_size_of_the_map(side: int, regions: int) -> None:
    ours = block(n_win=None, topk=1)
    assert ours.attention_weights(image(side, side, batch=1)).regions.shape[1] == regions**2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n_win", "topk"), [(4, 3), (2, 3)])
def test_half_precision_stays_near_single(dtype: torch.dtype, n_win: int, topk: int) -> None:
    ours, x = block(n_win=n_win, topk=topk).to(dtype), image().to(dtype)
    exact = copy.deepcopy(ours).float()(x.float()).detach()
    with torch.no_grad():
        half = ours(x)
    assert half.dtype == dtype
    assert (half.float() - exact).std() < 0.02 * exact.std()


def test_half_precision_and_autocast_route_as_single_does() -> None:
    ours, x = block(n_win=7), image(28, 28).bfloat16().float()
    half = copy.deepcopy(ours).bfloat16()
    exact = copy.deepcopy(half).float().attention_weights(x).regions
    assert torch.equal(half.attention_weights(x.bfloat16()).regions, exact)
    expected = ours.attention_weights(x).regions
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.attention_weights(x).regions, expected)
        assert ours(x).dtype == torch.bfloat16


def test_copies_and_pickles_are_the_same_block() -> None:
    ours, x = block(), image()
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x), ours(x))


def test_names_are_those_of_the_authors() -> None:
    module = block(soft_routing=True, diff_routing=True, param_routing=True)
    assert {name for name in module.state_dict() if name.endswith("weight")} == {
        "qkv.qkv.weight",
        "router.emb.weight",
        "lepe.weight",
        "wo.weight",
    }


@pytest.mark.parametrize("lepe_of", ["input", "value"])
def test_full_attention_adds_a_convolution_of_its_input_or_values(lepe_of: str) -> None:
    module, x = spread(LePEAttention(16, num_heads=2, lepe_of=lepe_of)), image(5, 7)
    qkv = module.qkv(x)
    query, key, value = qkv.flatten(1, 2).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    mixed = ((query @ key.mT) * 8**-0.5).softmax(-1) @ value
    seen = x if lepe_of == "input" else qkv[..., 32:]
    local = module.lepe(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    expected = module.proj(mixed.transpose(1, 2).reshape(x.shape) + local)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-4)


def test_full_attention_names_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="does not divide by num_heads 3"):
        LePEAttention(16, num_heads=3)
    with pytest.raises(ValueError, match="side_dwconv 4 is even"):
        LePEAttention(16, side_dwconv=4)
