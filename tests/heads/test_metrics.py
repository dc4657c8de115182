"""Metrics of bags: what their names say, also where classes are missing."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics as oracle

from regard.heads.metrics import ClassificationMetrics, attention_statistics


def measured(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    metrics = ClassificationMetrics(logits.shape[1])
    for part in range(0, len(labels), 7):  # in uneven batches
        metrics.update(logits[part : part + 7], labels[part : part + 7])
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("classes", [2, 3])
def test_they_are_those_of_scikit_learn_and_f1_is_macro(classes: int) -> None:
    draw = torch.Generator().manual_seed(classes)
    labels = (torch.rand(60, generator=draw) ** 2 * classes).long()  # unbalanced
    logits = torch.randn(60, classes, generator=draw) + torch.nn.functional.one_hot(labels, classes)
    found, predicted, probabilities = measured(logits, labels), logits.argmax(dim=1), logits.softmax(dim=1)
    micro = oracle.f1_score(labels, predicted, average="micro")
    assert found["accuracy"] == pytest.approx(micro, abs=1e-6)
    assert found["macro_f1"] == pytest.approx(oracle.f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert found["macro_f1"] != pytest.approx(micro, abs=1e-3)
    assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(labels, predicted), abs=1e-6)
    area = oracle.roc_auc_score(labels, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr")
    assert found["auc"] == pytest.approx(area, abs=1e-6)
    assert found["loss"] == pytest.approx(oracle.log_loss(labels, logits.double().softmax(dim=1)), abs=1e-5)


def test_a_class_that_no_bag_has_lowers_nothing() -> None:
    logits = torch.tensor([[3.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    found = measured(logits, torch.tensor([0, 0, 1]))
    assert found["auc"] == found["balanced_accuracy"] == found["accuracy"] == 1.0


def test_one_class_alone_has_no_auc() -> None:
    assert measured(torch.randn(4, 2), torch.ones(4, dtype=torch.long))["auc"] != pytest.approx(0.5, nan_ok=False)


@pytest.mark.parametrize("size", [2, 50])
def test_attention_is_even_or_on_one(size: int) -> None:
    even = attention_statistics(torch.full((size,), 1 / size))
    peak = attention_statistics(torch.eye(size)[0], torch.arange(size) == 0)
    assert even["entropy"] == pytest.approx(1.0)
    assert even["top_mass"] == pytest.approx(min(1.0, 10 / size))
    assert (peak["entropy"], peak["top_mass"], peak["instance_auc"]) == (0.0, 1.0, 1.0)


def test_what_one_instance_does_not_define_is_left_out() -> None:
    assert attention_statistics(torch.ones(1), torch.ones(1, dtype=torch.bool)) == {"top_mass": 1.0}
