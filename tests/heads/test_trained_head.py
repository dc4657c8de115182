"""Trained heads as folders: loading gives the same head, and runs no code from the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from all_heads import CASES, DIM, bags

from regard.heads import load_head
from regard.heads.trained_head import TrainedHead, load_trained_head, save_trained_head


def trained(name: str = "abmil", **own: object) -> TrainedHead:
    torch.manual_seed(0)
    head = TrainedHead(name, DIM, ["a", "b", "c"], CASES[name][1], **own)
    head.mean, head.std = torch.randn(DIM), torch.rand(DIM) + 0.5
    return head.eval()


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES.values()}))
def test_a_loaded_head_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = TrainedHead(name, DIM, ["a", "b", "c"], next(own for one, own in CASES.values() if one == name)).eval()
    head.mean, head.std = torch.randn(DIM), torch.rand(DIM) + 0.5
    save_trained_head(head, tmp_path / "model")
    again, bag = load_trained_head(tmp_path / "model"), bags(9)
    outputs = []
    for one in (head, again):
        torch.manual_seed(0)  # DTFD draws pseudo-bags
        outputs.append(one(bag).logits)
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    assert not again.training


def test_features_are_standardised_before_the_head() -> None:
    head, bag = trained(), bags(2, 9)
    plain = head.head((bag - head.mean) / head.std).logits
    torch.testing.assert_close(head(bag).logits, plain)


def test_a_large_half_precision_bag_is_standardised_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    head, bag = trained(), bags(50).half()
    whole = head.standardise(bag)
    monkeypatch.setattr("regard.heads.trained_head._BLOCK", 7 * DIM)
    assert whole.dtype == torch.float16
    torch.testing.assert_close(head.standardise(bag), whole, rtol=0, atol=0)


def test_the_weights_alone_are_a_file_that_load_head_reads(tmp_path: Path) -> None:
    head, bag = trained(standardised=False), bags(9)
    save_trained_head(head, tmp_path / "model")
    torch.testing.assert_close(load_head(tmp_path / "model/model.safetensors")(bag).logits, head(bag).logits)
    assert not (tmp_path / "model/features.safetensors").exists()


def test_what_was_there_is_replaced_whole(tmp_path: Path) -> None:
    save_trained_head(trained(), tmp_path / "model")
    save_trained_head(trained("mean", standardised=False), tmp_path / "model", encoder="uni", seed=3)
    assert load_trained_head(tmp_path / "model").name == "mean"
    assert json.loads((tmp_path / "model/config.json").read_text())["seed"] == 3
    assert not list(tmp_path.glob("*.partial"))


def test_probabilities_of_survival_fall_from_interval_to_interval() -> None:
    head = TrainedHead("abmil", DIM, ["early", "late"], CASES["abmil"][1], task="survival", cuts=[2.0])
    probabilities = head.probabilities(torch.randn(5, 2))
    assert (probabilities[:, 1] < probabilities[:, 0]).all()


def test_a_head_of_another_package_is_not_imported_unasked(tmp_path: Path) -> None:
    save_trained_head(trained(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"head": "antigravity:Head"}))
    with pytest.raises(ValueError, match="importing it runs its code"):
        load_trained_head(tmp_path)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"dim_in": 3}, r"does not fit its config\.json"),
        ({"options": {"widht": 8}}, "did you mean 'width'"),
        ({"options": None, "classes": None}, "does not"),
        ({"dim_in": "many"}, "does not describe a trained head"),
    ],
)
def test_a_description_that_does_not_fit_is_named(change: dict[str, object], hint: str, tmp_path: Path) -> None:
    save_trained_head(trained(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=hint):
        load_trained_head(tmp_path)


def test_a_folder_without_a_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load_trained_head(tmp_path)
    save_trained_head(trained(), tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged"):
        load_trained_head(tmp_path / "model")
