"""IBMIL's confounders."""

from __future__ import annotations

import pytest
import torch
from all_heads import DIM, bags

from regard.heads import build_head
from regard.heads.ibmil import confounders_of
from regard.heads.plain.ibmil import ibmil


@pytest.mark.parametrize("merge", ["cat", "add", "sub"])
def test_the_vector_is_merged_with_the_mean_confounder(merge: str) -> None:
    torch.manual_seed(0)
    head = build_head("ibmil", DIM, 2, width=16, confounders=torch.randn(5, 16), merge=merge)
    bag = bags(20)
    torch.testing.assert_close(head(bag).features, ibmil(head.state_dict(), bag, merge=merge).features)


def test_confounders_are_the_centres_of_the_bags() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 9.0], [9.0, 0.0], [-9.0, -9.0]])
    points = centres.repeat_interleave(20, dim=0) + 0.1 * torch.randn(60, 2)
    found = confounders_of(list(points), count=3)
    expected = points.unflatten(0, (3, 20)).mean(dim=1)
    torch.testing.assert_close(found[found[:, 0].argsort()], expected[expected[:, 0].argsort()])
    assert torch.equal(confounders_of(points, count=3, seed=4), confounders_of(points, count=3, seed=4))


def test_bags_that_are_all_alike_make_centres_too() -> None:
    assert torch.equal(confounders_of(torch.ones(4, 2), count=3), torch.ones(3, 2))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="9 confounders for 4 bags"):
        confounders_of(torch.zeros(4, 2), count=9)
    with pytest.raises(ValueError, match="the confounders have width 8, but the head has width 16"):
        build_head("ibmil", DIM, 2, width=16, confounders=torch.zeros(3, 8))
