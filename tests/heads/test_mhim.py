"""MHIM's masks, teacher and merging."""

from __future__ import annotations

import math

import pytest
import torch
from all_heads import DIM, bags
from torch import nn

from regard.heads import build_head
from regard.heads.mhim import VERSION_1, soft_cross_entropy
from regard.heads.mhim_masking import Masks
from regard.heads.mhim_merge import Merge


def test_low_and_high_are_hidden_and_the_rest_stays_in_order() -> None:
    scores = torch.tensor([[0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.0]])
    assert Masks(low=0.2).kept(scores).tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert Masks(high=0.25, high_share=1.0).kept(scores).tolist() == [0, 1, 3, 5, 7, 8, 9]
    assert Masks(low=0.2, high=0.2, high_share=1.0).kept(scores).tolist() == [0, 3, 4, 5, 7, 8]


@pytest.mark.parametrize(
    ("masks", "count", "hidden"),
    [
        (Masks(random=0.5), 31, 16),
        (Masks(high=0.03), 100, 3),
        (Masks(high=0.8, high_share=0.5), 10, 8),
        (Masks(high=0.01), 7, 1),
    ],
)
def test_so_many_are_hidden(masks: Masks, count: int, hidden: int) -> None:
    scores = torch.rand(1, count)
    kept = masks.kept(scores)
    assert len(kept) == count - hidden
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_high_masks_draw_among_the_highest_only() -> None:
    torch.manual_seed(0)
    scores = torch.arange(100.0)[None]
    seen = set()
    for _ in range(50):
        seen |= set(range(100)) - set(Masks(high=0.05, high_share=0.5).kept(scores).tolist())
    assert seen == set(range(90, 100))


def test_heads_vote() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.9, 0.1, 0.8, 0.0]])
    assert Masks(high=0.5, high_share=1.0).kept(scores).tolist() == [1, 3]


@pytest.mark.parametrize("masks", [Masks(high=1.0, high_share=1.0), Masks(low=1.0), Masks(high=0.03)])
def test_something_always_stays(masks: Masks) -> None:
    assert masks.kept(torch.rand(1, 1)).tolist() == [0]


def test_shares_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"mask shares are random 0\.0, low 1\.5"):
        Masks(low=1.5)


def test_the_teacher_follows_the_student_and_takes_no_gradient() -> None:
    torch.manual_seed(0)
    head = build_head("mhim", DIM, 2, width=16, momentum=0.9).train()
    optimiser = torch.optim.SGD([weight for weight in head.parameters() if weight.requires_grad], lr=0.5)
    before = [weight.clone() for weight in head.teacher.parameters()]
    head(bags(20), labels=torch.tensor(1)).loss(torch.tensor(1)).backward()
    assert all(weight.grad is None for weight in head.teacher.parameters())
    optimiser.step()
    head.after_step()
    for old, own, other in zip(before, head.teacher.parameters(), head.student.parameters(), strict=True):
        torch.testing.assert_close(own, 0.9 * old + 0.1 * other)


def test_schedules_follow_the_progress() -> None:
    head = build_head(
        "mhim", DIM, 2, width=16, momentum=0.9, momentum_schedule="cosine", mask_schedule="cosine"
    ).train()
    found = []
    for progress in (0.0, 0.5, 1.0):
        head.progress = progress
        found.append(round(head.momentum_now(), 6))
    assert found == [0.9, 0.95, 1.0]
    seen = []
    hook = head.student.merge.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    head(bags(100))
    hook.remove()
    assert seen == [100]  # nothing is hidden at the end


def test_merging_keeps_a_share_and_its_queries_follow() -> None:
    torch.manual_seed(0)
    merge = Merge(16, tokens=3, keep=0.7, momentum=0.5, drop_rate=0.0).train()
    instances = torch.randn(20, 16)
    tokens, stay = merge(instances)
    assert tokens.shape == (14 + 3, 16)
    torch.testing.assert_close(tokens[:14], instances[stay])
    before = merge.global_q.clone()
    merge.after_step()
    torch.testing.assert_close(merge.global_q[0], 0.5 * before[0] + 0.5 * tokens[14:])
    merge.after_step()  # nothing new was found
    torch.testing.assert_close(merge.global_q[0], 0.5 * before[0] + 0.5 * tokens[14:])


def test_evaluation_does_not_use_the_teacher() -> None:
    torch.manual_seed(0)
    head = build_head("mhim", DIM, 2, width=16, **VERSION_1).eval()
    bag = bags(20)
    before = head(bag).logits
    for weight in head.teacher.parameters():
        nn.init.zeros_(weight)
    torch.testing.assert_close(head(bag).logits, before)


def test_consistency_is_least_when_the_student_is_as_sure() -> None:
    target = torch.tensor([[1.0, 0.0, -1.0]])
    entropy = -((target / 0.1).softmax(dim=-1) * (target / 0.1).log_softmax(dim=-1)).sum()
    torch.testing.assert_close(soft_cross_entropy(target / 0.1, target, 0.1), entropy)
    assert soft_cross_entropy(torch.zeros(1, 3), target, 0.1).item() == pytest.approx(math.log(3))
