"""DSMIL beside a plain formulation of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags
from torch import Tensor, nn

from regard.heads import build_head
from regard.heads.contract import binary_cross_entropy


def plain(head: nn.Module, bag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    stream = head.b_classifier
    scores = head.i_classifier.fc(bag)  # instances classes
    queries = stream.q(bag)
    critical = stream.q(bag[scores.argmax(dim=0)])
    weights = (queries @ critical.t() / queries.shape[1] ** 0.5).softmax(dim=0)
    values = bag if stream.v is None else stream.v(bag)
    pooled = weights.t() @ values
    logits = torch.einsum("dcf,cf->d", stream.fcc.weight, pooled) + stream.fcc.bias
    return logits, scores.max(dim=0).values, weights.t()


@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("chunk", [None, 7])
def test_it_is_what_the_paper_writes(nonlinear: bool, values: bool, classes: int, chunk: int | None) -> None:
    torch.manual_seed(0)
    head = build_head("dsmil", DIM, classes, hidden=8, nonlinear=nonlinear, values=values, chunk=chunk).train()
    bag, label = bags(25), torch.tensor(classes // 2)
    output = head(bag, labels=label, criterion=binary_cross_entropy)
    logits, highest, weights = plain(head, bag)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.attention, weights)
    wanted = (torch.arange(classes) == (label if classes > 1 else 1 - label)).float()
    expected = sum(0.5 * F.binary_cross_entropy_with_logits(found, wanted) for found in (logits, highest))
    loss = output.loss(label, binary_cross_entropy)
    torch.testing.assert_close(loss, expected)
    found, known = (torch.autograd.grad(each, list(head.parameters())) for each in (loss, expected))
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_critical_instance_is_no_padding() -> None:
    torch.manual_seed(0)
    head = build_head("dsmil", DIM, 2)
    nn.init.ones_(head.i_classifier.fc[0].weight)
    nn.init.zeros_(head.i_classifier.fc[0].bias)
    bag, valid = -torch.rand(1, 6, DIM), torch.arange(6)[None] < 4
    found = head.streams(bag.masked_fill(~valid[..., None], 0), valid)
    torch.testing.assert_close(found.max_logits, head.streams(bag[:, :4], None).max_logits)
    assert (found.max_logits < 0).all()  # the zeros of padding would score higher
