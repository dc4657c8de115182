"""The Lightning module of bag heads: what is in the loss, which hooks are called when, and the results of a test."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from all_heads import CASES, DIM, bags
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from regard.datasets.bags import BagBatch
from regard.heads import AEM
from regard.heads.trained_head import TrainedHead
from regard.heads.training import BagTrainer

pytestmark = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")


def trained(case: str = "abmil", classes: int = 2, **own: Any) -> TrainedHead:
    torch.manual_seed(0)
    name, options = CASES[case]
    return TrainedHead(name, DIM, [str(number) for number in range(classes)], options, **own)


def batches(count: int = 6) -> DataLoader[Any]:
    held = [BagBatch(bags(2, 5, seed=index), None, torch.tensor([0, 1]), torch.arange(2)) for index in range(count)]
    return DataLoader(held, batch_size=None)


def fit(learner: BagTrainer, **own: Any) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=2, enable_model_summary=False, **quiet, **own)
    trainer.fit(learner, batches())
    return trainer


def test_class_weights_count_with_one_bag_a_step_too() -> None:
    bag, label = bags(1, 5), torch.tensor([1])
    losses = [
        BagTrainer(trained(), class_weights=weights).loss(BagBatch(bag, None, label, label)).item()
        for weights in (None, [1.0, 3.0])
    ]
    assert losses[1] == pytest.approx(3 * losses[0])


def test_the_loss_is_the_bags_own_the_heads_terms_and_aem() -> None:
    model, batch = trained("acmil").eval(), BagBatch(bags(2, 5), None, torch.tensor([0, 1]), torch.arange(2))
    aem = AEM(weight=0.3)
    output = model(batch.features, labels=batch.targets)
    whole = F.cross_entropy(output.logits, batch.targets) + sum(output.losses.values()) + aem(output)
    assert set(output.losses) == {"branches", "diversity"}
    torch.testing.assert_close(BagTrainer(model, aem=aem).loss(batch), whole)


def test_padding_changes_no_loss() -> None:
    learner = BagTrainer(trained().eval(), aem=AEM(weight=0.3, normalise=True))
    first, second, labels = bags(5), bags(9, seed=2), torch.tensor([0, 1])
    alone = [
        learner.loss(BagBatch(bag[None], None, labels[index : index + 1], labels[:1]))
        for index, bag in enumerate((first, second))
    ]
    padded = torch.zeros(2, 9, DIM)
    padded[0, :5], padded[1] = first, second
    valid = torch.arange(9) < torch.tensor([[5], [9]])
    torch.testing.assert_close(learner.loss(BagBatch(padded, valid, labels, labels)), sum(alone) / 2)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_head_is_told_the_progress_and_steps_with_the_optimiser(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = BagTrainer(trained("mhim"))
    seen, steps = [], []
    monkeypatch.setattr(learner.model.head, "after_step", lambda: steps.append(learner.model.head.progress))
    own_loss = learner.loss

    def loss(batch: BagBatch) -> torch.Tensor:
        found = own_loss(batch)
        seen.append(learner.model.head.progress)
        return found

    monkeypatch.setattr(learner, "loss", loss)
    fit(learner, accumulate_grad_batches=accumulate)
    assert len(seen) == 12
    assert len(steps) == 12 / accumulate
    assert seen[0] == 0.0
    assert seen[-1] == pytest.approx(1 - accumulate / 12)
    assert seen == sorted(seen)


def test_the_teacher_follows_and_takes_no_gradient() -> None:
    learner = BagTrainer(trained("mhim"), lr=0.1)
    before = [weight.clone() for weight in learner.model.head.teacher.parameters()]
    trainer = fit(learner)
    held = {id(weight) for group in trainer.optimizers[0].param_groups for weight in group["params"]}
    assert not any(id(weight) in held for weight in learner.model.head.teacher.parameters())
    after = list(learner.model.head.teacher.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_logged_losses_are_means_over_the_epoch() -> None:
    learner = BagTrainer(trained("acmil"), lr=0.0, warmup_lr=0.0)
    learner.model.head.top = 0  # nothing is random
    trainer = fit(learner)
    expected = torch.stack([learner.loss(batch) for batch in batches()]).mean()
    assert trainer.callback_metrics["train_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert {"train_branches", "train_diversity"} <= trainer.callback_metrics.keys()


def test_a_test_leaves_a_prediction_of_each_bag_with_its_attention() -> None:
    learner = BagTrainer(trained(), instance_labels=lambda position: torch.arange(5) == position)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    found = [BagBatch(bags(2, 5), None, torch.tensor([0, 1]), torch.tensor([3, 1]))]
    Trainer(accelerator="cpu", **quiet).test(learner, DataLoader(found, batch_size=None), verbose=False)
    assert [one.bag_index for one in learner.predictions] == [1, 3]
    assert learner.predictions[1].attention.keys() == {"entropy", "top_mass", "instance_auc"}
    assert 0 <= learner.tested["accuracy"] <= 1
    logits = learner.model.eval()(found[0].features).logits
    assert learner.predictions[1].logits == pytest.approx(logits[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("case", ["abmil", "acmil", "dsmil", "dtfd", "ilra", "mhim", "transmil"])
def test_survival_reaches_every_term_of_the_loss(case: str) -> None:
    learner = BagTrainer(trained(case, 4, task="survival", cuts=[1.0, 2.0, 3.0]))
    targets = torch.tensor([[0.5, 1.0], [2.5, 0.0]])
    assert learner.labels_of(targets).tolist() == [[0, 1], [2, 0]]
    loss = learner.loss(BagBatch(bags(2, 5), None, targets, torch.arange(2)))
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("case", ["clam_sb", "clam_mb", "ins"])
def test_heads_whose_instances_have_classes_refuse_survival(case: str) -> None:
    with pytest.raises(ValueError, match="know classes, not survival"):
        BagTrainer(trained(case, 2, task="survival", cuts=[1.0]))


def test_what_does_not_go_together_is_named() -> None:
    with pytest.raises(ValueError, match="needs a metric"):
        BagTrainer(trained(), schedule="plateau")
    with pytest.raises(ValueError, match="3 class weights for 2 classes"):
        BagTrainer(trained(), class_weights=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="no classes to weight"):
        BagTrainer(trained(task="survival", cuts=[1.0]), class_weights=[1.0, 1.0])
    with pytest.raises(ValueError, match="2 time intervals have 1 cuts"):
        trained(task="survival")
