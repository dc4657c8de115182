"""Every head gives the logits, attention, losses and gradients of its plain formulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from all_heads import CASES, bags, small
from torch import Tensor, nn

from regard.heads import HEADS, BagOutput
from regard.heads.clam import smooth_top1_svm
from regard.heads.dtfd import deal
from regard.heads.plain import PLAIN
from regard.heads.plain.abmil import abmil
from regard.heads.plain.abmil_mha import abmil_mha
from regard.heads.plain.acmil import acmil
from regard.heads.plain.acmil_mha import acmil_mha
from regard.heads.plain.clam import clam
from regard.heads.plain.dsmil import dsmil
from regard.heads.plain.dtfd import dtfd
from regard.heads.plain.ibmil import ibmil
from regard.heads.plain.ilra import ilra
from regard.heads.plain.ins import ins
from regard.heads.plain.mhim import mhim
from regard.heads.plain.transmil import transmil


def groups(bag: Tensor) -> list[Tensor]:
    """The pseudo-bags of a bag in evaluation."""
    return deal(len(bag), min(4, len(bag)), False, bag.device)


#: Name of a case -> its plain formulation, of weights, a bag and its label.
TWINS: dict[str, Callable[[dict[str, Tensor], Tensor, Tensor], BagOutput]] = {
    "abmil": lambda weights, bag, label: abmil(weights, bag),
    "abmil_plain": lambda weights, bag, label: abmil(weights, bag),
    "abmil_mha": lambda weights, bag, label: abmil_mha(weights, bag),
    "clam_sb": lambda weights, bag, label: clam(weights, bag, int(label), samples=3),
    "clam_sb_plain": lambda weights, bag, label: clam(
        weights, bag, int(label), samples=3, instance_loss=smooth_top1_svm
    ),
    "clam_mb": lambda weights, bag, label: clam(weights, bag, int(label), samples=3, subtyping=True),
    "dsmil": dsmil,
    "dsmil_nonlinear": dsmil,
    "transmil": lambda weights, bag, label: transmil(weights, bag),
    "dtfd": lambda weights, bag, label: dtfd(weights, bag, label, groups=groups(bag)),
    "dtfd_maxmin": lambda weights, bag, label: dtfd(
        weights, bag, label, groups=groups(bag), distillation="MaxMinS", distilled=2
    ),
    "ilra": lambda weights, bag, label: ilra(weights, bag, heads=2),
    "ibmil": lambda weights, bag, label: ibmil(weights, bag),
    "acmil": acmil,
    "acmil_mha": partial(acmil_mha, heads=2),
    "mhim_first": lambda weights, bag, label: mhim(weights, bag),
    "ins": lambda weights, bag, label: ins(weights, bag),
}


def weights_of(head: nn.Module) -> dict[str, Tensor]:
    """The named parameters and buffers themselves, so that gradients reach them."""
    return dict(head.named_parameters()) | dict(head.named_buffers())


def check(head: nn.Module, bag: Tensor, label: Tensor, expected: BagOutput) -> None:
    """One output is the other in every number and gradient."""
    output = head(bag, labels=label)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.attention, expected.attention, check_dtype=False)
    assert output.losses.keys() == expected.losses.keys()
    for name, loss in expected.losses.items():
        torch.testing.assert_close(output.losses[name], loss)
    assert output.bag_weight == expected.bag_weight
    learning = [weight for weight in head.parameters() if weight.requires_grad]
    found, known = (
        torch.autograd.grad(each.loss(label), learning, allow_unused=True, materialize_grads=True)
        for each in (output, expected)
    )
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("case", TWINS)
@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_head_is_its_plain_formulation(case: str, count: int) -> None:
    head, bag, label = small(case).double().eval(), bags(count).double(), torch.tensor(2)
    check(head, bag, label, TWINS[case](weights_of(head), bag, label))


@pytest.mark.parametrize("count", [3, 30])
def test_acmil_hides_the_instances_that_its_plain_formulation_hides(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, bag, label = small("acmil", top=7, hide_rate=0.5).double().train(), bags(count).double(), torch.tensor(1)
    drawn = torch.rand(3, min(7, count))
    monkeypatch.setattr("regard.heads.stkim.draw", lambda shape, _: drawn.reshape(shape))
    check(head, bag, label, acmil(weights_of(head), bag, label, drawn=drawn.double(), hide_rate=0.5))


def test_mhims_student_learns_from_what_is_kept_towards_the_teachers_view_of_all() -> None:
    head = small("mhim_first", mask_random=0.0, mask_low=0.2, mask_high=0.2, mask_high_share=1.0, drop_rate=0.0)
    head, bag, label = head.double().train(), bags(20).double(), torch.tensor(1)
    scores = head.teach(bag)[1]
    check(head, bag, label, mhim(weights_of(head), bag, kept=head.masks.kept(scores)))


def test_every_head_but_mean_and_max_has_one() -> None:
    assert set(PLAIN) == set(HEADS) - {"mean", "max"} == {CASES[case][0] for case in TWINS}
