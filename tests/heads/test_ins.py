"""INS: pseudo labels, prototypes and the queue."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags

from regard.heads import build_head
from regard.heads.ins import contrast


def small_ins(**own) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_head("ins", DIM, 3, **({"width": 16, "embedding": 8, "queue": 40} | own)).train()


@pytest.mark.parametrize("label", [0, 2])
def test_only_the_negative_class_and_the_bags_are_allowed(label: int) -> None:
    head = small_ins()
    head.progress = 0.5
    head(bags(20), labels=torch.tensor(label))
    assert set(head._seen[0].label.tolist()) <= {0, label}


def test_instances_of_a_negative_bag_are_taught_that_they_are() -> None:
    head = small_ins(drop_rate=0.0)
    bag = bags(20)
    output = head(bag, labels=torch.tensor(0))
    expected = F.cross_entropy(head.fc(head.encoder(bag)), torch.zeros(20, dtype=torch.long))
    torch.testing.assert_close(output.losses["instances"], expected)


def test_the_queue_takes_the_newest_first_and_prototypes_are_of_unit_length() -> None:
    head = small_ins()
    for step in range(3):
        head(bags(2, 9, seed=step), labels=torch.tensor([0, 1]))
        seen = list(head._seen)
        head.after_step()
    assert (head.queue_labels >= 0).all()
    torch.testing.assert_close(head.queue[:9], seen[1].key)
    torch.testing.assert_close(head.queue_labels[:9], seen[1].label)
    torch.testing.assert_close(head.prototypes[0].norm(), torch.tensor(1.0))


def test_prototypes_follow_one_instance_after_the_other() -> None:
    head = small_ins()
    head.prototypes[0, 0] = 1.0
    query = F.normalize(torch.randn(4, 8), dim=-1)
    expected = head.prototypes[0].clone()
    for row in query:
        expected = 0.9 * expected + 0.1 * row
    head._seen = [type("Seen", (), {"query": query, "key": query, "label": torch.zeros(4, dtype=torch.long)})()]
    head.after_step()
    torch.testing.assert_close(head.prototypes[0], F.normalize(expected, dim=-1))
    assert (head.prototypes[1] == 0).all()


def test_the_copy_follows_slowly() -> None:
    head = small_ins(momentum=0.9)
    before = [weight.clone() for weight in head.key.parameters()]
    for weight in head.encoder.parameters():
        weight.data.add_(1)
    head.after_step()
    torch.testing.assert_close(head.key[0][0].weight, before[0] + 0.1)


def test_contrast_is_that_of_its_paper() -> None:
    torch.manual_seed(0)
    rows, others = (F.normalize(torch.randn(n, 4), dim=-1) for n in (3, 5))
    names, there = torch.tensor([0, 1, 0]), torch.tensor([1, 0, -1, 2, 0])
    columns, titles = torch.cat([rows, others]), torch.cat([names, there])
    each = []
    for i in range(3):
        compared = [j for j in range(8) if j != i and titles[j] >= 0]
        total = sum((rows[i] @ columns[j] / 0.5).exp() for j in compared)
        same = [j for j in compared if titles[j] == names[i]]
        each.append(-sum((rows[i] @ columns[j] / 0.5).exp().div(total).log() for j in same) / len(same))
    torch.testing.assert_close(contrast(rows, names, columns, titles, 0.5), torch.stack(each).mean())


def test_it_needs_a_negative_class() -> None:
    with pytest.raises(ValueError, match="num_classes is 1"):
        build_head("ins", DIM, 1)
    with pytest.raises(ValueError, match="a bag has label 3"):
        small_ins()(bags(5), labels=torch.tensor(3))
