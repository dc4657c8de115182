"""The interface of every block of the table, on maps of any size."""

import copy

import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention import ATTENTION, AttentionBlock, build_attention

every_block = pytest.mark.parametrize("name", ATTENTION)
#: Lines of one row or column, single positions, and maps smaller than any window or kernel.
SIZES = [(1, 1), pytest.param(*(1, 40), marks=pytest.mark.full), pytest.param(*(40, 1), marks=pytest.mark.full), (2, 3)]


#: With these a block leaves nothing out; rounding may turn a choice, and then numbers are not near.
EVERYTHING = {"sparsifiner": {"keep_rate": 1.0}}


def block(name: str, options: dict[str, object] | None = None) -> nn.Module:
    torch.manual_seed(0)
    return build_attention(name, 32, options, num_heads=2)


def image(height: int, width: int) -> Tensor:
    return torch.randn(2, height, width, 32, generator=torch.Generator().manual_seed(1))


@every_block
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_lines_and_maps_smaller_than_a_window_come_out_and_learn(name: str, height: int, width: int) -> None:
    ours, x = block(name), image(height, width).requires_grad_()
    assert isinstance(ours, AttentionBlock)
    out = ours(x)
    assert out.shape == x.shape
    out.square().mean().backward()
    for tensor in (out, x.grad, *(parameter.grad for parameter in ours.parameters())):
        assert tensor is not None
        assert tensor.isfinite().all()
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), out.detach(), rtol=1e-4, atol=1e-5)


@every_block
@pytest.mark.parametrize(("height", "width"), [pytest.param(1, 9, marks=pytest.mark.full), (13, 17)])
def test_float16_is_finite_and_near_float32(name: str, height: int, width: int) -> None:
    exact, x = block(name, EVERYTHING.get(name)).eval(), image(height, width)
    with torch.no_grad():
        half = copy.deepcopy(exact).half()(x.half())
        expected = exact(x)
    assert half.dtype == torch.float16
    assert half.isfinite().all()
    assert (half.float() - expected).std() < 0.01 * expected.std()


@every_block
def test_float16_of_large_numbers_is_finite(name: str) -> None:
    """Intermediate sums and products must not overflow float16 where the result does not."""
    ours, x = block(name).half().eval(), (30 * image(13, 17)).half()
    with torch.no_grad():
        assert ours(x).isfinite().all()
