"""ACMIL: its losses over a batch, a single branch, and masking in training."""

from __future__ import annotations

import pytest
import torch
from all_heads import DIM, bags

from regard.heads import build_head


def test_losses_of_a_batch_are_means_over_its_bags() -> None:
    torch.manual_seed(0)
    head = build_head("acmil", DIM, 3, width=16).eval()
    bag, labels = bags(4, 10), torch.tensor([0, 1, 2, 1])
    together = head(bag, labels=labels)
    each = [head(bag[i], labels=labels[i]) for i in range(4)]
    for name in ("branches", "diversity"):
        torch.testing.assert_close(together.losses[name], torch.stack([one.losses[name] for one in each]).mean())


@pytest.mark.parametrize("name", ["acmil", "acmil_mha"])
def test_a_lone_branch_has_no_losses_and_nothing_that_does_not_learn(name: str) -> None:
    head = build_head(name, DIM, 2, width=16, branches=1)
    output = head(bags(9), labels=torch.tensor(1))
    assert not output.losses
    output.loss(torch.tensor(1)).backward()
    assert all(weight.grad is not None for weight in head.parameters() if weight.requires_grad)


@pytest.mark.parametrize("name", ["acmil", "acmil_mha"])
def test_masking_is_for_training_only(name: str) -> None:
    torch.manual_seed(0)
    head = build_head(name, DIM, 2, width=16, top=5, hide_rate=1.0)
    bag = bags(30)
    assert (head.train()(bag).attention == 0).sum(dim=-1).eq(5).all()
    assert not (head.eval()(bag).attention == 0).any()


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="branches is 0"):
        build_head("acmil", DIM, 2, branches=0)
    with pytest.raises(ValueError, match="a width of 16 is not a multiple of 3 heads"):
        build_head("acmil_mha", DIM, 2, width=16, heads=3)
