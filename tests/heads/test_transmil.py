"""TransMIL, its attention and its convolutions against plain formulations of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags

from regard.heads import build_head
from regard.heads.depthwise import grid_convolution, sequence_convolution
from regard.heads.nystrom import NystromAttention, iterated_inverse
from regard.heads.plain.transmil import nystrom_attention, pseudo_inverse, transmil
from regard.heads.transmil import instance_attention


@pytest.mark.parametrize("count", [10, 33, 64, 101])
def test_the_head_is_its_plain_formulation(count: int) -> None:
    torch.manual_seed(0)
    head = build_head("transmil", DIM, 4, width=32, heads=4).double().eval()
    bag = bags(count).double().requires_grad_()
    found = [head(bag).logits, transmil(dict(head.named_parameters()), bag).logits]
    torch.testing.assert_close(*found)
    gradients = [torch.autograd.grad(each.sum(), [bag, *head.parameters()]) for each in found]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("count", [5, 16, 41])
def test_attention_and_its_first_row_are_their_plain_formulation(count: int) -> None:
    torch.manual_seed(0)
    attention = NystromAttention(16, heads=3, dim_head=5, landmarks=8).double().eval()
    x = torch.randn(count, 16, dtype=torch.double)
    named = {f"attn.{name}": weight for name, weight in attention.named_parameters()}
    out, weights = nystrom_attention(named, "attn", x)
    torch.testing.assert_close(attention(x), out)
    first, row = attention.first(x)
    torch.testing.assert_close(first, out[0])
    torch.testing.assert_close(row, weights[:, 0])
    torch.testing.assert_close(attention.row_weights(x), weights[:, 0])


def test_the_inverse_is_one_and_does_not_see_its_batch() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(3, 6, 6, dtype=torch.double).softmax(dim=-1) + torch.eye(6)
    right = torch.randn(3, 6, 2, dtype=torch.double)
    torch.testing.assert_close(iterated_inverse(matrix, right, 20), torch.linalg.solve(matrix, right))
    torch.testing.assert_close(iterated_inverse(matrix, right, 6), pseudo_inverse(matrix, 6) @ right)


@pytest.mark.parametrize(("count", "kernel", "skip"), [(70, 5, 0), (64, 33, 0), (20, 33, 3), (1, 3, 0)])
def test_the_sequence_convolution_is_pytorchs(count: int, kernel: int, skip: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(count, 2, 3, dtype=torch.double)
    x[:skip] = 0
    x.requires_grad_()
    weight = torch.randn(2, 1, kernel, 1, dtype=torch.double, requires_grad=True)
    expected = F.conv2d(x.permute(1, 0, 2)[None], weight, padding=(kernel // 2, 0), groups=2)[0].permute(1, 0, 2)
    found = sequence_convolution(x, weight, skip)
    torch.testing.assert_close(found, expected[skip:])
    towards = torch.randn_like(found)
    d_x, d_weight = torch.autograd.grad(found, (x, weight), towards)
    e_x, e_weight = torch.autograd.grad(expected[skip:], (x, weight), towards)
    torch.testing.assert_close(d_x[skip:], e_x[skip:])
    torch.testing.assert_close(d_weight, e_weight)


def test_the_grid_convolution_has_right_gradients() -> None:
    torch.manual_seed(0)
    shapes = [(5, 4, 3), (3, 1, 3, 3), (3,)]
    assert torch.autograd.gradcheck(
        grid_convolution, [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    )


def test_instances_that_fill_the_square_count_for_where_they_came_from() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    torch.testing.assert_close(instance_attention(weights, 3), torch.tensor([[0.5, 0.2, 0.3]]))
    torch.testing.assert_close(instance_attention(-weights, 3), torch.full((1, 3), 1 / 3))


def test_the_order_of_a_scan_matters() -> None:
    torch.manual_seed(0)
    head, bag = build_head("transmil", DIM, 2, width=32).eval(), bags(30)
    assert (head(bag).logits - head(bag.flip(0)).logits).abs().max() > 1e-3


def test_heads_that_do_not_share_the_width_are_named() -> None:
    with pytest.raises(ValueError, match="a width of 32 is not a multiple of 3 heads"):
        build_head("transmil", DIM, 2, width=32, heads=3)
