"""TransMIL and its attention beside plain formulations of them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags
from torch import Tensor, nn

from regard.heads import build_head
from regard.heads.depthwise import grid_convolution, sequence_convolution
from regard.heads.nystrom import NystromAttention, iterated_inverse
from regard.heads.transmil import read_weights


def plain_inverse(matrix: Tensor, iterations: int) -> Tensor:
    found = matrix.mT / (matrix.abs().sum(-1).max() * matrix.abs().sum(-2).max())
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    for _ in range(iterations):
        near = matrix @ found
        found = found @ (13 * eye - near @ (15 * eye - near @ (7 * eye - near))) / 4
    return found


def plain_attention(attention: NystromAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """As the equation in the head of the file, with the map of all tokens by all."""
    marks, count = attention.landmarks, len(x)
    padded = F.pad(x, (0, 0, -count % marks, 0))
    query, key, value = (
        part.unflatten(-1, (attention.heads, -1)).transpose(0, 1) for part in attention.to_qkv(padded).chunk(3, dim=-1)
    )
    query = query / attention.dim_head**0.5
    means = [each.unflatten(1, (marks, -1)).mean(dim=2) for each in (query, key)]
    maps = [
        (query @ means[1].mT).softmax(dim=-1),
        plain_inverse((means[0] @ means[1].mT).softmax(dim=-1), attention.iterations),
        (means[0] @ key.mT).softmax(dim=-1),
    ]
    weights = maps[0] @ maps[1] @ maps[2]
    found = weights @ value + attention.res_conv(value[None])[0]
    out = attention.to_out(found.transpose(0, 1).flatten(1))
    return out[-count:], weights[:, -count:, -count:]


def plain_transmil(head: nn.Module, bag: Tensor) -> Tensor:
    tokens = head._fc1(bag)
    side = math.ceil(math.sqrt(len(bag)))
    tokens = torch.cat([head.cls_token[0], tokens, tokens[: side**2 - len(bag)]])
    tokens = tokens + plain_attention(head.layer1.attn, head.layer1.norm(tokens))[0]
    planes = tokens[1:].t().reshape(1, -1, side, side)
    place = head.pos_layer
    planes = planes + place.proj(planes) + place.proj1(planes) + place.proj2(planes)
    tokens = torch.cat([tokens[:1], planes[0].flatten(1).t()])
    tokens = tokens + plain_attention(head.layer2.attn, head.layer2.norm(tokens))[0]
    return head._fc2(head.norm(tokens)[0])


@pytest.mark.parametrize("count", [1, 3, 10, 33, 64, 101])
@pytest.mark.parametrize("classes", [1, 4])
def test_the_head_is_its_plain_formulation(count: int, classes: int) -> None:
    torch.manual_seed(0)
    head = build_head("transmil", DIM, classes, width=32, heads=4).double().eval()
    bag = bags(count).double().requires_grad_()
    found = [head(bag).logits, plain_transmil(head, bag)]
    torch.testing.assert_close(*found)
    gradients = [torch.autograd.grad(each.sum(), [bag, *head.parameters()]) for each in found]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("count", [5, 16, 41])
def test_attention_and_its_first_row_are_their_plain_formulation(count: int) -> None:
    torch.manual_seed(0)
    attention = NystromAttention(12, heads=3, dim_head=5, landmarks=8).double().eval()
    x = torch.randn(count, 12, dtype=torch.double)
    out, weights = plain_attention(attention, x)
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
    torch.testing.assert_close(iterated_inverse(matrix, right, 6), plain_inverse(matrix, 6) @ right)


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
    torch.testing.assert_close(read_weights(weights, 3), torch.tensor([[0.5, 0.2, 0.3]]))
    torch.testing.assert_close(read_weights(-weights, 3), torch.full((1, 3), 1 / 3))


def test_the_order_of_a_scan_matters() -> None:
    torch.manual_seed(0)
    head, bag = build_head("transmil", DIM, 2, width=32).eval(), bags(30)
    assert (head(bag).logits - head(bag.flip(0)).logits).abs().max() > 1e-3


def test_heads_that_do_not_share_the_width_are_named() -> None:
    with pytest.raises(ValueError, match="3 heads cannot share a width of 32"):
        build_head("transmil", DIM, 2, width=32, heads=3)
