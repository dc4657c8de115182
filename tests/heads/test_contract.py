"""What goes into heads and comes out."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags

from regard.heads import HEADS, BagOutput, build_head, head_class
from regard.heads.contract import as_batch, binary_cross_entropy, labels_of


def test_the_loss_is_the_bags_weighted_and_the_further_terms() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    output = BagOutput(logits=logits, losses={"a": torch.tensor(0.5), "b": torch.tensor(0.25)}, bag_weight=0.7)
    torch.testing.assert_close(output.loss(labels), 0.7 * F.cross_entropy(logits, labels) + 0.75)
    weighted = lambda rows, wanted: F.cross_entropy(rows, wanted, torch.tensor([1.0, 2.0, 3.0]))  # noqa: E731
    torch.testing.assert_close(output.loss(labels, weighted), 0.7 * weighted(logits, labels) + 0.75)


def test_a_custom_criterion_measures_the_terms_too() -> None:
    torch.manual_seed(0)
    head, bag = build_head("acmil", DIM, 4, width=16).eval(), bags(2, 9)
    survival = torch.tensor([[1, 0], [3, 1]])  # interval and event, say
    measured = []

    def criterion(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        measured.append(wanted)
        return rows.sum() * 0 + 1.0

    output = head(bag, labels=survival, criterion=criterion)
    assert output.losses["branches"].item() == 1
    assert torch.equal(measured[0], survival.repeat_interleave(5, dim=0))


def test_binary_cross_entropy_takes_each_class_by_itself() -> None:
    logits = torch.randn(5, 3)
    labels = torch.tensor([0, 1, 2, 2, 0])
    expected = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 3).float())
    torch.testing.assert_close(binary_cross_entropy(logits, labels), expected)


def test_padding_becomes_zeros_and_a_full_mask_none() -> None:
    bag, valid = torch.full((1, 3, 2), torch.nan), torch.tensor([[True, False, False]])
    bag[0, 0] = 1.0
    batch, mask = as_batch(bag, valid, 2)
    assert batch.tolist() == [[[1, 1], [0, 0], [0, 0]]]
    assert mask is not None
    assert as_batch(torch.ones(3, 2), torch.ones(3, dtype=torch.bool), 2)[1] is None


def test_masks_and_labels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"bags \[1\] of the batch have no valid instance"):
        as_batch(torch.ones(2, 3, 2), torch.tensor([[True] * 3, [False] * 3]), 2)
    with pytest.raises(ValueError, match="2 bags with labels of shape"):
        labels_of(torch.tensor([1, 0, 1]), torch.ones(2, 3, 2))


def test_heads_are_found_by_name_and_near_names_are_suggested() -> None:
    assert head_class("torch.nn:Linear") is torch.nn.Linear
    with pytest.raises(ValueError, match=r"no head is called 'acmill'; did you mean 'acmil'\? Known: acmil, "):
        head_class("acmill")
    with pytest.raises(ValueError, match="cannot import the head 'no_such_package:Head'"):
        head_class("no_such_package:Head")
    with pytest.raises(ValueError, match=r"has no option 'branchs'; did you mean 'branches'\?"):
        build_head("acmil", 8, 2, branchs=3)
    with pytest.raises(ValueError, match="dim_in is 0"):
        build_head("acmil", 0)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_its_source(name: str) -> None:
    assert head_class(name).paper.startswith(("arXiv:", "https://"))


def test_an_output_can_be_sent_to_another_process() -> None:
    output = BagOutput(logits=torch.zeros(2), attention=torch.ones(1, 1))
    assert torch.equal(pickle.loads(pickle.dumps(output)).attention, output.attention)


def test_the_table_needs_no_torch() -> None:
    code = "import regard.heads, sys; regard.heads.HEADS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
