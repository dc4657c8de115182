"""DSMIL: one class, chunks, and padding."""

from __future__ import annotations

import pytest
import torch
from all_heads import DIM, bags
from torch import nn

from regard.heads import build_head
from regard.heads.contract import binary_cross_entropy
from regard.heads.plain.dsmil import dsmil


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("chunk", [None, 7])
def test_binary_losses_in_chunks_are_those_of_the_plain_formulation(classes: int, chunk: int | None) -> None:
    torch.manual_seed(0)
    options = {"hidden": 8, "nonlinear": classes > 1, "values": True, "chunk": chunk}
    head, bag, label = build_head("dsmil", DIM, classes, **options), bags(25), torch.tensor(classes // 2)
    output = head(bag, labels=label, criterion=binary_cross_entropy)
    expected = dsmil(dict(head.named_parameters()), bag, label, criterion=binary_cross_entropy)
    losses = [each.loss(label, binary_cross_entropy) for each in (output, expected)]
    torch.testing.assert_close(*losses)
    found, known = (torch.autograd.grad(loss, list(head.parameters())) for loss in losses)
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_critical_instance_is_never_padding() -> None:
    torch.manual_seed(0)
    head = build_head("dsmil", DIM, 2)
    nn.init.ones_(head.i_classifier.fc[0].weight)
    nn.init.zeros_(head.i_classifier.fc[0].bias)
    bag, valid = -torch.rand(1, 6, DIM), torch.arange(6)[None] < 4
    found = head.streams(bag.masked_fill(~valid[..., None], 0), valid)
    torch.testing.assert_close(found.max_logits, head.streams(bag[:, :4], None).max_logits)
    assert (found.max_logits < 0).all()  # the zeros of padding would score higher
