import copy
import pickle

import pytest
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

from regard.vision.attention import halonet
from regard.vision.attention.halonet import HaloAttention, explicit_attention, fused_attention
from regard.vision.attention.plain.halonet import PlainHaloAttention

SIZES = [
    (1, 1),
    pytest.param(*(1, 9), marks=pytest.mark.full),
    pytest.param(*(5, 3), marks=pytest.mark.full),
    (13, 17),
    pytest.param(*(16, 24), marks=pytest.mark.full),
]
OPTIONS = [
    {},
    {"stride": 2},
    {"block_size": 5, "halo_size": 4, "stride": 2},
    {"block_size": 2, "halo_size": 5, "qkv_bias": True},
    {"block_size": 4, "halo_size": 0, "scale_pos_embed": True},
    {"mask_outside": True, "halo_size": 1, "proj": False},
]


def image(height: int = 13, width: int = 17, dim: int = 16, batch: int = 3) -> Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(0))


def pair(**options: object) -> tuple[HaloAttention, PlainHaloAttention]:
    torch.manual_seed(1)
    ours, plain = HaloAttention(16, num_heads=2, **options), PlainHaloAttention(16, num_heads=2, **options)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_equals_the_plain_formulation(height: int, width: int, options: dict) -> None:
    ours, plain = pair(**options)
    x = image(height, width)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, pytest.param(2**15, marks=pytest.mark.full)])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("planar", [False, True], ids=["nhwc", "nchw"])
def test_chunks_of_a_batch_give_the_same_numbers(
    chunk: int, gradients: bool, planar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halonet, "CACHE_NUMEL", chunk)
    x = image(batch=5)
    if planar:
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for options in ({}, {"mask_outside": True, "stride": 2}):
        ours, plain = pair(**options)
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


def test_an_empty_batch_comes_out_as_it_went_in() -> None:
    assert pair()[0](image(batch=0)).shape == (0, 13, 17, 16)


@pytest.mark.parametrize("chunk", [1, pytest.param(2**20, marks=pytest.mark.full)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_equal_those_of_the_plain_formulation(
    options: dict, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halonet, "CACHE_NUMEL", chunk)
    ours, plain = pair(**options)
    images = [image().requires_grad_() for _ in range(2)]
    ours(images[0]).square().sum().backward()
    by_plain(plain, images[1]).square().sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-3, atol=1e-3)
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(
            mine.grad, theirs.grad, rtol=0, atol=1e-4 * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_second_derivatives_are_right() -> None:
    torch.manual_seed(0)
    ours = HaloAttention(2, num_heads=1, dim_head=2, block_size=2, halo_size=1).double()
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, (x,))
    assert torch.autograd.gradgradcheck(ours, (x,))


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "avg_down": True},
        {"stride": 2, "block_size": 4, "halo_size": 1, "dim_head": 3, "dim_out": 32, "qkv_bias": True},
        {"block_size": 16, "halo_size": 2, "qk_ratio": 0.5},
    ],
)
def test_weights_of_timm_give_the_numbers_of_timm(options: dict) -> None:
    torch.manual_seed(0)
    theirs = HaloAttn(16, num_heads=2, **options)
    ours = HaloAttention(16, num_heads=2, proj=False, **options)
    ours.load_state_dict(theirs.state_dict())
    x = image(16, 32)
    torch.testing.assert_close(ours(x), theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fused_attention_is_the_same_function(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair(**options)
    x, context = image(), image()[:, :2].flatten(1, 2) if options.get("stride", 1) == 1 else None
    expected = ours(x, context)
    monkeypatch.setattr(halonet, "explicit_attention", fused_attention)
    torch.testing.assert_close(ours(x, context), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fused_attention_keeps_positions_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, length, 8).to(dtype) for length in (4, 9, 9))
    positions = [10 * torch.randn(2, 4, 3) for _ in range(2)]
    exact = explicit_attention(query.double(), key.double(), value.double(), *(p.double() for p in positions), 0.5)
    mixed = fused_attention(query, key, value, *positions, 0.5)
    assert mixed.dtype == dtype
    assert (mixed - exact).abs().max() < 0.02 * exact.std()


def test_context_is_attended_to_by_every_block_as_more_keys() -> None:
    ours, _ = pair(proj=False)
    x, context = image(9, 9), image()[:, 0, :3]
    query = ours.q(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, 2, 3].unflatten(-1, (2, 8))  # batch heads dim_head
    pairs = nn.functional.pad(ours.kv(x.permute(0, 3, 1, 2)), (3, 3, 3, 3))[:, :, :14, :14].flatten(2).mT
    more = context @ ours.kv.weight[:, :, 0, 0].T
    key, value = torch.cat([pairs, more], dim=1).unflatten(-1, (2, 16)).chunk(2, dim=-1)
    logits = torch.einsum("bhd,bkhd->bhk", query, key) * 8**-0.5
    rows, columns = ours.pos_embed.height_rel[13 - 2 : 27 - 2], ours.pos_embed.width_rel[13 - 3 : 27 - 3]
    logits[..., :196] += ((query @ rows.T)[..., None] + (query @ columns.T)[..., None, :]).flatten(2)
    expected = torch.einsum("bhk,bkhd->bhd", logits.softmax(-1), value).flatten(1)
    torch.testing.assert_close(ours(x, context)[:, 2, 3], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours(x, context)[:, 8, 8], ours(x)[:, 8, 8])
    assert torch.allclose(ours(x, context[:, :0]), ours(x))


def test_a_pixel_sees_its_block_and_the_rim() -> None:
    ours = HaloAttention(4, num_heads=1, block_size=4, halo_size=2).double()
    x = torch.randn(1, 16, 16, 4, dtype=torch.float64, requires_grad=True)
    ours(x)[0, 5, 9].sum().backward()  # of the block of rows 4-7 and columns 8-11
    seen = x.grad[0].abs().sum(dim=2).nonzero()
    assert seen.min(dim=0).values.tolist() == [2, 6]
    assert seen.max(dim=0).values.tolist() == [9, 13]


def test_what_lies_outside_gets_no_weight_once_masked() -> None:
    for masked in (True, False):
        ours = HaloAttention(4, num_heads=1, block_size=4, halo_size=2, mask_outside=masked, proj=False)
        with torch.no_grad():
            ours.kv.weight[4:].fill_(1)  # all values of a map of ones are 4
        averages = ours(torch.ones(1, 5, 6, 4))
        assert torch.allclose(averages, torch.tensor(4.0)) == masked


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype: torch.dtype) -> None:
    ours, _ = pair()
    exact = ours(image()).detach()
    half = copy.deepcopy(ours).to(dtype)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            out = half(image().to(dtype))
        assert out.dtype == dtype
        assert (out.float() - exact).std() < 0.02 * exact.std()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        assert (ours(image()).float() - exact).std() < 0.02 * exact.std()


def test_logits_are_single_precision_under_autocast() -> None:
    """timm's layer adds the terms in bfloat16 there: 3.5 times the error of rounding its projections."""
    ours, _ = pair(proj=False)
    theirs = HaloAttn(16, num_heads=2)
    theirs.load_state_dict(ours.state_dict())
    x = image(16, 16)
    exact = ours(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        errors = [ours(x) - exact, theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) - exact]
    assert errors[0].std() < errors[1].std()


def test_any_number_of_blocks_goes_through_one_export() -> None:
    ours, _ = pair()
    rows, columns = torch.export.Dim("rows", min=2, max=9), torch.export.Dim("columns", min=2, max=9)
    sizes = ({1: 8 * rows, 2: 8 * columns},)
    exported = torch.export.export(ours, (image(16, 24),), dynamic_shapes=sizes, strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(image(32, 16)), ours(image(32, 16)))


def test_it_pickles() -> None:
    ours, _ = pair()
    assert torch.equal(pickle.loads(pickle.dumps(ours))(image()), ours(image()))


def test_names_are_those_of_timm() -> None:
    names = [name for name, _ in HaloAttention(16, num_heads=2).named_parameters()]
    assert names[:4] == ["q.weight", "kv.weight", "pos_embed.height_rel", "pos_embed.width_rel"]
    assert names[4:] == ["proj.weight", "proj.bias"]


def test_initial_weights_are_normal_by_fan_in() -> None:
    torch.manual_seed(0)
    ours = HaloAttention(256, num_heads=4)
    assert ours.kv.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert ours.pos_embed.height_rel.std().item() == pytest.approx(64**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "16 channels out do not divide by num_heads 3"),
        ({"num_heads": 2, "stride": 3}, "stride is 3.*1 or 2"),
        ({"num_heads": 2, "block_size": 0}, "block_size 0"),
        ({"num_heads": 16, "qk_ratio": 0.2}, "give dim_head or fewer heads"),
    ],
)
def test_numbers_that_do_not_fit_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HaloAttention(16, **options)
