import copy

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from regard.vision import create_model
from regard.vision.sparsifiner_training import (
    SparsifinerClassifier,
    distillation_loss,
    predictors,
    reconstruction,
    token_loss,
)

quiet = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
TINY = {"img_size": 48, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}


def network(name: str = "sparsifiner_deit_tiny_patch16_224", **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **(TINY | options))


def loader(count: int = 8) -> DataLoader:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(count, 3, 48, 48), torch.arange(count) % 3), batch_size=4)


def fit(classifier: SparsifinerClassifier, epochs: int) -> None:
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=epochs, enable_model_summary=False, **options).fit(classifier, loader(), loader())


def changed(before: dict[str, Tensor], model: nn.Module) -> set[bool]:
    """Whether the predictors are what changed (True), or all else (False)."""
    after = model.state_dict()
    return {"mask_predictor" in name for name in before if not torch.equal(before[name], after[name])}


@quiet
@pytest.mark.parametrize(
    "options",
    [{}, {"token_keep_rates": [1.0, 0.5]}, {"token_keep_rates": [0.7, 0.5], "token_mode": "clean"}],
    ids=["connections", "reference", "clean"],
)
def test_each_stage_trains_its_own_part(options: dict[str, object]) -> None:
    for stage in (1, 0):
        model = network(**options)
        before = copy.deepcopy(model.state_dict())
        fit(SparsifinerClassifier(model, reconstruction_epochs=stage, warmup_epochs=0, warmup_lr=1e-3), epochs=1)
        assert changed(before, model) == {bool(stage)}


@quiet
def test_both_stages_follow_one_another() -> None:
    model = network()
    classifier = SparsifinerClassifier(model, reconstruction_epochs=1, warmup_lr=1e-3)
    teacher = copy.deepcopy(classifier.teacher.state_dict())
    before = copy.deepcopy(model.state_dict())
    fit(classifier, epochs=2)
    assert changed(before, model) == {True, False}
    assert all(torch.equal(teacher[name], tensor) for name, tensor in classifier.teacher.state_dict().items())
    assert {predictor.mode for predictor in predictors(model)} == {"sparse"}


def test_reconstruction_gets_better_by_its_loss() -> None:
    model = network()
    learning = [weight for predictor in predictors(model) for weight in predictor.parameters()]
    optimizer = torch.optim.Adam(learning, lr=0.01)
    images = next(iter(loader()))[0]
    history = []
    for _ in range(15):
        with reconstruction(model) as errors:
            model(images)
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert 0 < history[-1] < 0.5 * history[0]


def test_the_rates_are_those_of_the_authors() -> None:
    classifier = SparsifinerClassifier(network(), warmup_lr=0.0)
    assert classifier.rate(0, 50) == 0
    assert classifier.rate(3, 50) == pytest.approx(3e-4)
    assert classifier.rate(5 - 1e-6, 50) == pytest.approx(2e-4)
    assert classifier.rate(5 + 3, 50) == pytest.approx(8e-5)
    assert classifier.rate(50, 50) == pytest.approx(2e-6)


def test_a_student_like_its_teacher_loses_nothing() -> None:
    logits, tokens = torch.randn(2, 5), torch.randn(2, 4, 3)
    assert distillation_loss(logits, logits).abs() < 1e-6
    other = tokens.clone()
    other[:, 0] += 1
    valid = torch.tensor([[False, True, True, True]]).expand(2, -1)
    assert token_loss(tokens, other, valid) == 0
    assert token_loss(tokens, other).item() == pytest.approx(0.25)


def test_a_vit_with_the_block_is_taken_too() -> None:
    options = {key: value for key, value in TINY.items() if key != "num_heads"} | {"num_heads": 2}
    model = create_model("vit_tiny_patch16_224", attention="sparsifiner", **options)
    classifier = SparsifinerClassifier(model)
    terms = classifier._sparse_terms(*next(iter(loader())))
    assert set(terms) == {"classification", "distillation", "tokens"}
    assert "reconstruction" in classifier._reconstruction_terms(next(iter(loader()))[0])


def test_a_network_without_predictors_is_refused() -> None:
    with pytest.raises(ValueError, match="has no predictors"):
        SparsifinerClassifier(create_model("vit_tiny_patch16_224", **TINY))
