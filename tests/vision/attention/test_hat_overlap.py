import copy
import pickle

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention import hat_overlap, windows
from regard.vision.attention.hat_overlap import OverlappingCrossAttention, clip, whole
from regard.vision.attention.plain.hat_overlap import PlainOverlappingCrossAttention

SIZES = [
    pytest.param(*(1, 1), marks=pytest.mark.full),
    pytest.param(*(1, 9), marks=pytest.mark.full),
    (3, 4),
    pytest.param(*(4, 4), marks=pytest.mark.full),
    pytest.param(*(5, 3), marks=pytest.mark.full),
    pytest.param(*(8, 5), marks=pytest.mark.full),
    (13, 17),
    pytest.param(*(16, 24), marks=pytest.mark.full),
]
OPTIONS = [
    {},
    {"overlap_ratio": 0},
    {"overlap_ratio": 2.5, "num_heads": 1},
    {"window_size": 5, "overlap_ratio": 0.4, "qkv_bias": False},
    {"window_size": 7, "overlap_ratio": 4 / 7},
    {"window_size": 1, "overlap_ratio": 2},
]
both_paths = pytest.mark.parametrize("clipped", [False, True], ids=["padded", "clipped"])


def image(height: int = 13, width: int = 17, dim: int = 16, batch: int = 3) -> Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(0))


def pair(**options: object) -> tuple[OverlappingCrossAttention, PlainOverlappingCrossAttention]:
    torch.manual_seed(1)
    options = {"num_heads": 2, "window_size": 4} | options
    ours, plain = OverlappingCrossAttention(16, **options), PlainOverlappingCrossAttention(16, **options)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def choose(clipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows at the border on their own, or the map padded."""
    monkeypatch.setattr(hat_overlap, "runs_eagerly_on_cpu", lambda x: clipped)
    monkeypatch.setattr(hat_overlap, "work", lambda batch, rows, columns: rows[0].ahead + columns[0].ahead)


@both_paths
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_equals_the_plain_formulation(
    height: int, width: int, options: dict, clipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, plain = pair(**options)
    x = image(height, width)
    torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)
    choose(clipped, monkeypatch)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


@both_paths
@pytest.mark.parametrize(
    "chunk", [pytest.param(1, marks=pytest.mark.full), 300, pytest.param(2**15, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("gradients", [True, False])
def test_chunks_give_the_same_numbers(
    chunk: int, gradients: bool, clipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(clipped, monkeypatch)
    monkeypatch.setattr(windows, "QUERIES", chunk)
    monkeypatch.setattr(windows, "LOGITS", chunk)
    x = image(batch=5)
    ours, plain = pair()
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradients", [True, False])
def test_an_empty_batch_comes_out_as_it_went_in(gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        assert pair()[0](image(batch=0)).shape == (0, 13, 17, 16)


@both_paths
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_equal_those_of_the_plain_formulation(
    options: dict, clipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(clipped, monkeypatch)
    ours, plain = pair(**options)
    images = [image().requires_grad_() for _ in range(2)]
    ours(images[0]).square().sum().backward()
    by_plain(plain, images[1]).square().sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-3, atol=1e-3)
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        scale = theirs.grad.abs().max().item() + 1e-3
        torch.testing.assert_close(
            mine.grad, theirs.grad, rtol=0, atol=1e-4 * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_bias_of_a_pair_is_where_the_authors_index_finds_it() -> None:
    ours, plain = pair()
    rows = len(ours.relative_position_bias_table)
    with torch.no_grad():
        ours.relative_position_bias_table[:] = torch.arange(rows).unsqueeze(1)
        part = whole(4, 4, ours.rim)
        found = windows.bias_by_offset(ours.offsets, part, part)[0]
    index = plain._index()
    assert index.min() < 0
    assert torch.equal(found, (index % rows).float())


def test_what_lies_outside_takes_part() -> None:
    ours, _ = pair()
    with torch.no_grad():
        ours.relative_position_bias_table.zero_()
        ours.qkv.weight.zero_()
        ours.qkv.bias.fill_(0)[32:] = 1  # all values are 1, all logits 0
        ours.proj.weight.copy_(torch.eye(16))
        ours.proj.bias.zero_()
        shares = ours(torch.ones(1, 9, 12, 16))[0, :, :, 0]
    assert shares[4, 5].item() == pytest.approx(1)
    assert shares[0, 0].item() == pytest.approx(25 / 36)
    assert shares[8, 0].item() == pytest.approx(2 * 5 / 36)


def test_far_lower_biases_outside_leave_gradients_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(True, monkeypatch)
    ours, _ = pair()
    with torch.no_grad():
        ours.relative_position_bias_table.mul_(1000)
    ours(image(5, 6)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


def test_windows_larger_than_the_map_cost_no_more_than_the_map() -> None:
    (part,) = clip(7, 16, 4)
    assert part.query.side == part.key.side == 7
    assert (part.before, part.after) == (4, 13)


@both_paths
def test_context_is_attended_to_by_every_window_as_more_keys(clipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(clipped, monkeypatch)
    ours, _ = pair()
    x, context = image(12, 12), image()[:, 0, :3]
    query = ours.qkv(x[:, 4:8, 4:8]).flatten(1, 2)[..., :16].unflatten(-1, (2, 8)).transpose(1, 2)
    tokens = torch.cat([x[:, 3:9, 3:9].flatten(1, 2), context], dim=1)
    key, value = ours.qkv(tokens)[..., 16:].unflatten(-1, (2, 2, 8)).permute(2, 0, 3, 1, 4)
    bias = windows.bias_by_offset(ours.offsets, *2 * [whole(4, 4, 1)])
    logits = query @ key.mT * 8**-0.5 + nn.functional.pad(bias, (0, 3))
    expected = ours.proj((logits.softmax(-1) @ value).transpose(1, 2).flatten(2)).unflatten(1, (4, 4))
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = ours(x, context)
            torch.testing.assert_close(found[:, 4:8, 4:8], expected, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(found[:, 0, 0], ours(x)[:, 0, 0])
            assert torch.allclose(ours(x, context[:, :0]), ours(x))


@both_paths
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype: torch.dtype, clipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(clipped, monkeypatch)
    ours, _ = pair()
    exact = ours(image()).detach()
    half = copy.deepcopy(ours).to(dtype)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            out = half(image().to(dtype))
            assert out.dtype == dtype
            assert (out.float() - exact).std() < 0.02 * exact.std()
            with torch.autocast("cpu", dtype):
                assert (ours(image()).float() - exact).std() < 0.02 * exact.std()


def test_gradients_under_autocast_are_finite() -> None:
    ours, _ = pair()
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(image())
    out.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


def test_any_number_of_windows_goes_through_one_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the sizes are symbols, not ints
    ours, _ = pair()
    rows, columns = torch.export.Dim("rows", min=2, max=9), torch.export.Dim("columns", min=2, max=9)
    sizes = ({1: 4 * rows, 2: 4 * columns},)
    exported = torch.export.export(ours, (image(16, 24),), dynamic_shapes=sizes, strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(image(32, 12)), ours(image(32, 12)))


def test_it_pickles() -> None:
    ours, _ = pair()
    assert torch.equal(pickle.loads(pickle.dumps(ours))(image()), ours(image()))


def test_names_are_those_of_the_authors() -> None:
    names = [name for name, _ in OverlappingCrossAttention(60).named_parameters()]
    assert names == ["relative_position_bias_table", "qkv.weight", "qkv.bias", "proj.weight", "proj.bias"]
    assert OverlappingCrossAttention(60).relative_position_bias_table.shape == (1521, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "dim 16 does not divide by num_heads 3"),
        ({"window_size": 0}, "window_size 0 must be at least 1"),
        ({"overlap_ratio": -0.5}, "overlap_ratio -0.5 at least 0"),
        ({"window_size": 7}, r"3 wider than window_size 7, which is odd.*0\.2858 or 0\.5715"),
    ],
)
def test_numbers_that_do_not_fit_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OverlappingCrossAttention(16, **({"num_heads": 2} | options))


def test_the_suggested_ratios_are_valid() -> None:
    for window in range(1, 40):
        for ratio in (0.25, 0.5, 0.7, 1.3):
            try:
                OverlappingCrossAttention(2, num_heads=1, window_size=window, overlap_ratio=ratio)
            except ValueError as error:
                for near in str(error).partition("Use a ratio of ")[2].split(" or "):
                    OverlappingCrossAttention(2, num_heads=1, window_size=window, overlap_ratio=float(near))
