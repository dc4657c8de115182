import copy
import pickle

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from regard.vision import create_model
from regard.vision.attention import windows
from regard.vision.attention.hat import ChannelAttentionBlock, HybridAttention, WindowAttention, cut
from regard.vision.attention.plain.hat import PlainHybridAttention

SIZES = [
    pytest.param(*(1, 1), marks=pytest.mark.full),
    pytest.param(*(1, 9), marks=pytest.mark.full),
    (3, 4),
    pytest.param(*(4, 4), marks=pytest.mark.full),
    pytest.param(*(5, 3), marks=pytest.mark.full),
    pytest.param(*(7, 12), marks=pytest.mark.full),
    (13, 17),
    pytest.param(*(16, 24), marks=pytest.mark.full),
]
OPTIONS = [
    {},
    {"shift": 2},
    {"shift": 1, "num_heads": 1, "conv_scale": 1.0},
    {"shift": 3, "window_size": 5, "qkv_bias": False},
    {"window_size": 1},
    {"compress_ratio": 99, "squeeze_factor": 99, "conv_scale": 1},
]


def image(height: int = 13, width: int = 17, dim: int = 16, batch: int = 3) -> Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(0))


def pair(**options: object) -> tuple[HybridAttention, PlainHybridAttention]:
    torch.manual_seed(1)
    options = {"num_heads": 2, "window_size": 4, "shift": 0} | options
    ours, plain = HybridAttention(16, **options), PlainHybridAttention(16, **options)
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
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("shift", range(4))
def test_windows_of_a_small_map_shift_too_where_they_are_told(height: int, width: int, shift: int) -> None:
    """The authors' network shifts by the image size that it was built for, not by the map at hand."""
    ours, plain = pair()
    x = image(height, width)
    expected = plain.attn(x.permute(0, 3, 1, 2), shift).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours.attn(x, shift=shift), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "chunk", [pytest.param(1, marks=pytest.mark.full), 300, pytest.param(2**15, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("planar", [False, True], ids=["nhwc", "nchw"])
def test_chunks_give_the_same_numbers(
    chunk: int, gradients: bool, planar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "QUERIES", chunk)
    monkeypatch.setattr(windows, "LOGITS", chunk)
    x = image(batch=5)
    if planar:
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    ours, plain = pair(shift=2)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradients", [True, False])
def test_an_empty_batch_comes_out_as_it_went_in(gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        assert pair(shift=1)[0](image(batch=0)).shape == (0, 13, 17, 16)


@pytest.mark.parametrize("window", [4, 12], ids=["kept", "again"])  # logits in the backward pass
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("chunk", [1, pytest.param(2**20, marks=pytest.mark.full)])
def test_gradients_equal_those_of_the_plain_formulation(
    window: int, shift: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "LOGITS", chunk)
    ours, plain = pair(window_size=window, shift=shift, num_heads=4)
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
    ours = WindowAttention(2, num_heads=1, window_size=2).double()
    x = torch.randn(1, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ours(x, shift=1), (x,))
    assert torch.autograd.gradgradcheck(lambda x: ours(x, shift=1), (x,))


@pytest.mark.parametrize(("shift", "first", "last"), [(0, [4, 8], [7, 11]), (2, [6, 6], [9, 9]), (3, [3, 7], [6, 10])])
def test_a_pixel_sees_its_window(shift: int, first: list[int], last: list[int]) -> None:
    ours = WindowAttention(4, num_heads=1, window_size=4).double()
    x = torch.randn(1, 16, 16, 4, dtype=torch.float64, requires_grad=True)
    ours(x, shift=shift)[0, 6, 9].sum().backward()
    seen = x.grad[0].abs().sum(dim=2).nonzero()
    assert seen.min(dim=0).values.tolist() == first
    assert seen.max(dim=0).values.tolist() == last


def test_what_meets_only_by_rolling_is_apart() -> None:
    ours = WindowAttention(4, num_heads=1, window_size=4).double()
    x = torch.randn(1, 8, 8, 4, dtype=torch.float64, requires_grad=True)
    ours(x, shift=2)[0, 0, 0].sum().backward()
    assert x.grad[0].abs().sum(dim=2).nonzero().max() == 1


def test_a_map_of_one_window_is_not_shifted() -> None:
    straight, shifted = pair(shift=0)[0], pair(shift=2)[0]
    for size, same in (((4, 4), True), ((4, 9), True), ((3, 2), True), ((5, 6), False)):
        assert torch.equal(straight(image(*size)), shifted(image(*size))) == same


def test_every_second_block_of_a_network_is_shifted() -> None:
    small = {"img_size": 32, "patch_size": 4, "embed_dim": 12, "depth": 4, "num_heads": 2, "num_classes": 2}
    options = {"window_size": 4}
    model = create_model("vit_tiny_patch16_224", attention="hat", attention_options=options, **small)
    assert [block.attn.attention.shift for block in model.blocks] == [0, 2, 0, 2]
    options["shift"] = 1
    model = create_model("vit_tiny_patch16_224", attention="hat", attention_options=options, **small)
    assert [block.attn.attention.shift for block in model.blocks] == [1, 1, 1, 1]
    assert HybridAttention(12, window_size=4).shift == 0


def test_the_bias_of_a_pair_is_that_of_its_offset() -> None:
    ours = WindowAttention(2, num_heads=2, window_size=3)
    with torch.no_grad():
        ours.relative_position_bias_table.copy_(torch.arange(50).view(25, 2))
    part = cut(3, 3, 0)[0]
    bias = windows.bias_by_offset(ours.offsets, part, part).unflatten(1, (3, 3)).unflatten(3, (3, 3))
    assert bias[1, 2, 0, 1, 1] == 2 * ((2 - 1 + 2) * 5 + (0 - 1 + 2)) + 1


def test_context_is_attended_to_by_every_window_as_more_keys() -> None:
    ours = pair()[0].attn
    x, context = image(9, 9), image()[:, 0, :3]
    tokens = torch.cat([x[:, 4:8, 4:8].flatten(1, 2), context], dim=1)
    query, key, value = ours.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    bias = windows.bias_by_offset(ours.offsets, *2 * cut(4, 4, 0))
    logits = query[:, :, :16] @ key.mT * 8**-0.5 + nn.functional.pad(bias, (0, 3))
    expected = ours.proj((logits.softmax(-1) @ value).transpose(1, 2).flatten(2)).unflatten(1, (4, 4))
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = ours(x, context=context)
            torch.testing.assert_close(found[:, 4:8, 4:8], expected, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(found[:, 8, 8], ours(x)[:, 8, 8])
            assert torch.allclose(ours(x, context=context[:, :0]), ours(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype: torch.dtype) -> None:
    ours, _ = pair(shift=2)
    exact = ours(image()).detach()
    half = copy.deepcopy(ours).to(dtype)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            out = half(image().to(dtype))
            assert out.dtype == dtype
            assert (out.float() - exact).std() < 0.02 * exact.std()
            with torch.autocast("cpu", dtype):
                assert (ours(image()).float() - exact).std() < 0.02 * exact.std()


def test_gradients_under_autocast_are_finite_and_near() -> None:
    ours, _ = pair(shift=2)
    gradients = []
    for enabled in (False, True):
        ours.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = ours(image())
        out.float().square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()])
    for exact, half in zip(*gradients, strict=True):
        assert half.isfinite().all()
        assert (half - exact).norm() < 0.05 * exact.norm() + 1e-6


def test_huge_logits_overflow_nothing() -> None:
    ours, _ = pair(shift=2)
    x = 1e4 * image()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert ours(x).isfinite().all()


@pytest.mark.parametrize("shift", [0, 2])
def test_any_number_of_windows_goes_through_one_export(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the sizes are symbols, not ints
    ours, _ = pair(shift=shift)
    rows, columns = torch.export.Dim("rows", min=2, max=9), torch.export.Dim("columns", min=2, max=9)
    sizes = ({1: 4 * rows, 2: 4 * columns},)
    exported = torch.export.export(ours, (image(16, 24),), dynamic_shapes=sizes, strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(image(32, 12)), ours(image(32, 12)))


def test_it_pickles() -> None:
    ours, _ = pair(shift=2)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(image()), ours(image()))


def test_names_are_those_of_the_authors() -> None:
    assert [
        name for name, _ in HybridAttention(60).named_parameters() if name.endswith("weight") or "table" in name
    ] == [
        "attn.relative_position_bias_table",
        "attn.qkv.weight",
        "attn.proj.weight",
        "conv_block.cab.0.weight",
        "conv_block.cab.2.weight",
        "conv_block.cab.3.attention.1.weight",
        "conv_block.cab.3.attention.3.weight",
    ]


def test_initial_weights_are_those_of_the_authors() -> None:
    torch.manual_seed(0)
    ours = HybridAttention(120)
    for parameter in ours.parameters():
        nn.init.constant_(parameter, 7)
    ours.init_weights()
    assert ours.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert ours.attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.05)
    assert not ours.attn.qkv.bias.any()
    bound = (120 * 9) ** -0.5
    assert ours.conv_block.cab[0].weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_small_widths_keep_a_channel() -> None:
    assert ChannelAttentionBlock(2).cab[0].weight.shape[0] == 1
    assert ChannelAttentionBlock(2)(image(dim=2)).shape == (3, 13, 17, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "dim 16 does not divide by num_heads 3"),
        ({"num_heads": 2, "window_size": 0}, "window_size is 0"),
        ({"num_heads": 2, "window_size": 4, "shift": 4}, "shift 4 is not from 0 to window_size - 1 = 3"),
        ({"num_heads": 2, "shift": -1}, "shift -1"),
        ({"num_heads": 2, "compress_ratio": 0}, "compress_ratio 0"),
    ],
)
def test_numbers_that_do_not_fit_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridAttention(16, **options)
