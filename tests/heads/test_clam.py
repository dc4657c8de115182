"""CLAM's classifiers of instances, beside a plain formulation of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags
from torch import Tensor, nn

from regard.heads import build_head
from regard.heads.clam import smooth_top1_svm


def plain_instance_loss(head: nn.Module, bag: Tensor, label: int, samples: int, subtyping: bool, loss) -> Tensor:
    hidden = head.attention_net[0](bag).relu()
    scores = head.pool(bag[None], None).scores[0]
    total = torch.zeros(())
    for place, classifier in enumerate(head.instance_classifiers):
        row = scores[place] if len(scores) > 1 else scores[0]
        order = row.argsort(descending=True)
        if place == label:
            asked = torch.cat([order[:samples], order[-samples:]])
            said = torch.tensor([1] * len(order[:samples]) + [0] * len(order[-samples:]))
        elif subtyping:
            asked, said = order[:samples], torch.zeros(len(order[:samples]), dtype=torch.long)
        else:
            continue
        total = total + loss(classifier(hidden[asked]), said)
    return total / len(head.instance_classifiers) if subtyping else total


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize(("count", "samples"), [(30, 8), (9, 8), (5, 8), (1, 3)])
@pytest.mark.parametrize("kind", ["ce", "svm"])
def test_it_asks_about_the_highest_and_lowest(name: str, subtyping: bool, count: int, samples: int, kind: str) -> None:
    torch.manual_seed(0)
    own = {"width": 16, "hidden": 8, "samples": samples, "subtyping": subtyping, "instance_loss": kind}
    head = build_head(name, DIM, 4, **own).eval()
    bag = bags(count)
    loss = smooth_top1_svm if kind == "svm" else F.cross_entropy
    for label in (0, 3):
        output = head(bag, labels=torch.tensor(label))
        expected = plain_instance_loss(head, bag, label, samples, subtyping, loss)
        torch.testing.assert_close(output.losses["instance"], 0.3 * expected)
        whole = 0.7 * F.cross_entropy(output.logits, torch.tensor(label)) + 0.3 * expected
        torch.testing.assert_close(output.loss(torch.tensor(label)), whole)


def test_without_samples_it_is_attention_pooling() -> None:
    head = build_head("clam_sb", DIM, 2, width=16, samples=0)
    output = head(bags(9), labels=torch.tensor(1))
    assert not output.losses
    assert output.bag_weight == 1
    assert not any(weight.requires_grad for weight in head.instance_classifiers.parameters())


def test_the_smooth_hinge_is_that_of_its_paper() -> None:
    logits, targets = torch.tensor([[2.0, 0.5], [0.0, 3.0]]), torch.tensor([0, 0])
    expected = torch.stack(
        [torch.log1p(torch.tensor(0.5 - 2 + 1.0).exp()), torch.log1p(torch.tensor(3 - 0 + 1.0).exp())]
    )
    torch.testing.assert_close(smooth_top1_svm(logits, targets), expected.mean())
    sharp = smooth_top1_svm(logits, targets, heat=1e-3)
    torch.testing.assert_close(sharp, torch.tensor((0.0 + 4.0) / 2), rtol=0, atol=1e-2)


def test_padding_is_never_asked_about() -> None:
    torch.manual_seed(0)
    head, bag = build_head("clam_mb", DIM, 3, width=16, subtyping=True).eval(), bags(1, 20)
    valid = torch.arange(20)[None] < 10
    padded = head(bag, valid, labels=torch.tensor([2])).losses["instance"]
    torch.testing.assert_close(padded, head(bag[:, :10], labels=torch.tensor([2])).losses["instance"])


def test_a_label_outside_the_classes_is_named() -> None:
    with pytest.raises(ValueError, match="a bag has label 2, but there are 2 classes"):
        build_head("clam_sb", DIM, 2, width=16)(bags(9), labels=torch.tensor(2))
