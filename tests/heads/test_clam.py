"""CLAM's classifiers of instances."""

from __future__ import annotations

import pytest
import torch
from all_heads import DIM, bags

from regard.heads import build_head
from regard.heads.clam import smooth_top1_svm
from regard.heads.plain.clam import clam


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("count", [9, 5])
def test_instance_classifiers_are_trained_on_the_highest_and_lowest(name: str, subtyping: bool, count: int) -> None:
    torch.manual_seed(0)
    head = build_head(name, DIM, 4, width=16, hidden=8, samples=8, subtyping=subtyping).eval()
    weights, bag = head.state_dict(), bags(count)
    for label in (0, 3):
        output = head(bag, labels=torch.tensor(label))
        expected = clam(weights, bag, label, samples=8, subtyping=subtyping)
        torch.testing.assert_close(output.losses, expected.losses)


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
    sharp = smooth_top1_svm(logits, targets, temperature=1e-3)
    torch.testing.assert_close(sharp, torch.tensor((0.0 + 4.0) / 2), rtol=0, atol=1e-2)


def test_padding_is_never_sampled() -> None:
    torch.manual_seed(0)
    head, bag = build_head("clam_mb", DIM, 3, width=16, subtyping=True).eval(), bags(1, 20)
    valid = torch.arange(20)[None] < 10
    padded = head(bag, valid, labels=torch.tensor([2])).losses["instance"]
    torch.testing.assert_close(padded, head(bag[:, :10], labels=torch.tensor([2])).losses["instance"])


def test_a_label_outside_the_classes_is_named() -> None:
    with pytest.raises(ValueError, match="a bag has label 2, but there are 2 classes"):
        build_head("clam_sb", DIM, 2, width=16)(bags(9), labels=torch.tensor(2))
