import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention.ela import EfficientLocalAttention
from regard.vision.attention.plain.ela import PlainEfficientLocalAttention

SIZES = [(1, 1), pytest.param(*(1, 9), marks=pytest.mark.full), pytest.param(*(7, 1), marks=pytest.mark.full), (13, 17)]


def image(height: int = 13, width: int = 17, dim: int = 32) -> Tensor:
    return torch.randn(2, height, width, dim, generator=torch.Generator().manual_seed(0))


def planar(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)


def pair(version: str = "B") -> tuple[EfficientLocalAttention, PlainEfficientLocalAttention]:
    torch.manual_seed(1)
    ours, plain = (
        EfficientLocalAttention(32, version=version),
        PlainEfficientLocalAttention(32, version=version),
    )
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    "version", [pytest.param("T", marks=pytest.mark.full), pytest.param("S", marks=pytest.mark.full), "B", "L"]
)
@pytest.mark.parametrize("grad", [True, False])
def test_it_equals_the_plain_formulation(height: int, width: int, version: str, grad: bool) -> None:
    ours, plain = pair(version)
    x = image(height, width)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(ours(x), by_plain(plain, x))
        torch.testing.assert_close(ours(planar(x)), by_plain(plain, x))


@pytest.mark.parametrize("layout", [lambda x: x, planar], ids=["nhwc", "nchw"])
def test_gradients_equal_those_of_the_plain_formulation(layout: object) -> None:
    ours, plain = pair()
    mine, theirs = layout(image()).requires_grad_(), image().requires_grad_()
    (ours(mine) ** 2).sum().backward()
    (by_plain(plain, theirs) ** 2).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grad", [True, False])
def test_the_input_is_left_as_it_was(grad: bool) -> None:
    ours, _ = pair()
    for x in (image(), planar(image())):
        with torch.set_grad_enabled(grad):
            ours(x)
        torch.testing.assert_close(x, image(), rtol=0, atol=0)


@pytest.mark.parametrize("layout", [lambda x: x, planar], ids=["nhwc", "nchw"])
def test_memory_order_is_kept(layout: object) -> None:
    ours, _ = pair()
    x = layout(image())
    assert ours(x).stride() == x.stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_the_gates_in_single(dtype: torch.dtype) -> None:
    ours, _ = pair()
    x = image()
    exact = ours(x).detach()
    with torch.no_grad():
        half = ours.to(dtype)(x.to(dtype))
        assert half.dtype == dtype
        assert (half.float() - exact).std() < 0.01 * exact.std()


def test_autocast_keeps_the_gates_in_single() -> None:
    ours, _ = pair()
    x = image()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(x), ours.float()(x), rtol=0, atol=0)
    torch.testing.assert_close(ours(x), by_plain(pair()[1], x))


def test_gates_only_shrink() -> None:
    ours, _ = pair()
    x = image()
    assert (ours(x).abs() <= x.abs()).all()


@pytest.mark.parametrize(
    ("version", "kernel", "group_channels", "norm_groups"),
    [("T", 5, 1, 32), ("S", 5, 8, 16), ("B", 7, 1, 16), ("L", 7, 8, 16)],
)
def test_versions_are_the_published_ones(version: str, kernel: int, group_channels: int, norm_groups: int) -> None:
    block = EfficientLocalAttention(64, version=version)
    assert block.conv.weight.shape == (64, group_channels, kernel)
    assert block.gn.num_groups == norm_groups


@pytest.mark.parametrize(("dim", "group_channels", "norm_groups"), [(12, 6, 12), (7, 7, 7), (40, 8, 10), (1, 1, 1)])
def test_other_widths_take_the_largest_divisor(dim: int, group_channels: int, norm_groups: int) -> None:
    block = EfficientLocalAttention(dim, version="L")
    assert block.conv.weight.shape[1] == group_channels
    assert block.gn.num_groups == norm_groups
    assert block(image(dim=dim)).shape == image(dim=dim).shape


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": "X"}, "no version"),
        ({"kernel_size": 4}, "is even"),
        ({"norm_groups": 5}, "does not divide by norm_groups"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    if options.get("version"):  # the type says it too, and in tests types are run
        with pytest.raises(Exception, match="version"):
            EfficientLocalAttention(32, **options)
        return
    with pytest.raises(ValueError, match=words):
        EfficientLocalAttention(32, **options)
