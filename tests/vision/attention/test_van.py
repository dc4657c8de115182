import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention import van
from regard.vision.attention.plain.van import PlainVanAttention
from regard.vision.attention.van import LargeKernelAttention, VanAttention

SIZES = [(1, 1), (1, 9), (5, 3), (13, 17), (21, 20)]


def image(height: int = 13, width: int = 17, dim: int = 8, batch: int = 3) -> Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(0))


def pair(**options: bool) -> tuple[VanAttention, PlainVanAttention]:
    torch.manual_seed(1)
    ours, plain = VanAttention(8, **options), PlainVanAttention(8, **options)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("shortcut", [True, False])
def test_it_equals_the_plain_formulation(height: int, width: int, shortcut: bool) -> None:
    ours, plain = pair(shortcut=shortcut)
    x = image(height, width)
    torch.testing.assert_close(ours(x), by_plain(plain, x))


@pytest.mark.parametrize("planar", [False, True], ids=["nhwc", "nchw"])
def test_chunks_of_a_batch_give_the_same_numbers(planar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = pair()
    x = image(batch=5)
    if planar:
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    monkeypatch.setattr(van, "CACHE_NUMEL", 2 * x[0].numel())
    with torch.no_grad():
        torch.testing.assert_close(ours(x), by_plain(plain, x))


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches_come_out_as_they_went_in(batch: int) -> None:
    ours, _ = pair()
    with torch.no_grad():
        assert ours(image(batch=batch)).shape == (batch, 13, 17, 8)


def test_gradients_equal_those_of_the_plain_formulation() -> None:
    ours, plain = pair()
    x = image()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (ours(x) * weight).sum().backward()
    (by_plain(plain, x) * weight).sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_the_field_of_view_is_23_wide() -> None:
    torch.manual_seed(0)
    unit = LargeKernelAttention(2).double()
    x = torch.ones(1, 31, 31, 2, dtype=torch.float64, requires_grad=True)
    unit(x)[0, 15, 15, 0].backward()
    rows = x.grad[0].abs().sum(dim=(1, 2)).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (15 - 11, 15 + 11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype: torch.dtype) -> None:
    ours, _ = pair()
    x = image()
    exact = ours(x).detach()
    with torch.no_grad():
        half = ours.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - exact).std() < 0.02 * exact.std()


def test_a_product_beyond_float16_does_not_become_infinite() -> None:
    ours, _ = pair()
    with torch.no_grad():
        ours.spatial_gating_unit.conv1.weight.zero_()
        ours.spatial_gating_unit.conv1.bias.fill_(3000)
        ours.proj_2.weight.mul_(1e-3)
        ours.half()
        large = 100 * image().half()
        hidden = torch.nn.functional.gelu(ours.proj_1(large.permute(0, 3, 1, 2)))
        assert (hidden * 3000).isinf().any()
        assert ours(large).isfinite().all()


def test_autocast_keeps_the_product_in_single_precision() -> None:
    ours, _ = pair()
    with torch.no_grad():
        ours.spatial_gating_unit.conv1.bias.fill_(3000)
        ours.proj_2.weight.mul_(1e-3)
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        assert ours(100 * image()).isfinite().all()


def test_names_are_those_of_the_authors() -> None:
    assert {name for name, _ in VanAttention(8).named_parameters() if name.endswith("weight")} == {
        "proj_1.weight",
        "spatial_gating_unit.conv0.weight",
        "spatial_gating_unit.conv_spatial.weight",
        "spatial_gating_unit.conv1.weight",
        "proj_2.weight",
    }


def test_initial_weights_are_normal_by_fan_out() -> None:
    torch.manual_seed(0)
    unit = VanAttention(512)
    assert unit.proj_1.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert unit.spatial_gating_unit.conv_spatial.weight.std().item() == pytest.approx((2 / 49) ** 0.5, rel=0.05)
    assert not unit.proj_2.bias.any()
