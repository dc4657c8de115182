"""How DTFD deals, distils and learns."""

from __future__ import annotations

import pytest
import torch
from all_heads import DIM, bags

from regard.heads import build_head
from regard.heads.dtfd import deal


@pytest.mark.parametrize(("count", "groups"), [(10, 4), (3, 3), (100, 8)])
def test_every_instance_is_dealt_once(count: int, groups: int) -> None:
    dealt = deal(count, groups, True, torch.device("cpu"))
    assert torch.cat(dealt).sort().values.tolist() == list(range(count))
    assert {len(group) for group in dealt} <= {count // groups, -(-count // groups)}


def test_training_deals_anew_and_evaluation_does_not() -> None:
    torch.manual_seed(0)
    head, bag = build_head("dtfd", DIM, 2, width=16), bags(40)
    head.train()
    assert not torch.equal(head(bag).logits, head(bag).logits)
    head.eval()
    assert torch.equal(head(bag).logits, head(bag).logits)


@pytest.mark.parametrize(("kind", "distilled", "rows"), [("AFS", 4, 4), ("MaxS", 8, 8), ("MaxMinS", 8, 16)])
def test_the_second_tier_sees_what_was_distilled(kind: str, distilled: int, rows: int) -> None:
    head = build_head("dtfd", DIM, 2, width=16, distillation=kind, distilled=distilled)
    seen = []
    head.att_classifier["attention"].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    output = head(bags(40))
    assert seen[0].shape == (rows, 16)
    assert (output.attention > 0).sum() == (40 if kind == "AFS" else rows)


def test_the_second_tier_does_not_teach_the_first() -> None:
    head = build_head("dtfd", DIM, 2, width=16)
    head(bags(40)).loss(torch.tensor(1)).backward()
    assert all(weight.grad is None for weight in head.dim_reduction.parameters())
    assert all(weight.grad is not None for weight in head.att_classifier.parameters())


def test_the_highest_are_those_that_add_most_to_the_last_class() -> None:
    head = build_head("dtfd", DIM, 2, width=2, groups=1, distillation="MaxMinS", distilled=1)
    with torch.no_grad():
        head.classifier.fc.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    projected = torch.tensor([[1.0, 9.0], [3.0, 0.0], [2.0, 0.0]])
    share = torch.tensor([0.5, 0.2, 0.3])  # times the first channel: 0.5, 0.6, 0.6 - but rounded apart
    projected[2, 0] = 1.0  # 0.3
    assert head.distil(projected, share).tolist() == [1, 2]


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="groups is 4, distilled 2"):
        build_head("dtfd", DIM, 2, distilled=2)
