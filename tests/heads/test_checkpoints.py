"""Weights of the authors, in the forms in which they are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from all_heads import CASES, bags, small
from safetensors.torch import save_file

from regard.heads import load_head

#: Heads whose weights do not show all their options.
SHOWN = {
    "clam_sb": {"samples": 3},
    "clam_sb_plain": {"samples": 3, "instance_loss": "svm"},
    "clam_mb": {"samples": 3, "subtyping": True},
    "transmil": {},
    "dtfd_maxmin": {"distillation": "MaxMinS", "distilled": 8},
    "ilra": {"heads": 2},
    "acmil_mha": {"heads": 2},
    "mhim_selfattn": {"merge_test": True},
    "mhim_first": {"activation": "relu", "by_class": False},
    "mhim_first_selfattn": {"activation": "relu", "by_class": False},
}


def moved(case: str, **own: Any) -> torch.nn.Module:
    """A head whose weights are all its own."""
    head = small(case, **own)
    for weight in head.parameters():
        weight.data.normal_(std=0.3)
    return head.eval()


def renamed(head: torch.nn.Module, *pairs: tuple[str, str]) -> dict[str, torch.Tensor]:
    weights = dict(head.state_dict())
    for old, new in pairs:
        weights = {key.replace(old, new): value for key, value in weights.items()}
    return weights


def check(file: Path, head: torch.nn.Module, name: str | None = None, **own: Any) -> None:
    again = load_head(file, name, **own)
    assert not again.training
    bag = bags(30)
    torch.testing.assert_close(again(bag).logits, head(bag).logits)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["safetensors", pytest.param("pt", marks=pytest.mark.full)])
def test_every_head_is_identified_by_its_weights(case: str, form: str, tmp_path: Path) -> None:
    head = moved(case)
    file = tmp_path / f"head.{form}"
    if form == "pt":
        torch.save({"epoch": 3, "model": {f"module.{key}": value for key, value in head.state_dict().items()}}, file)
    else:
        save_file({key: value.contiguous() for key, value in head.state_dict().items()}, file)
    options = CASES[case][1] if case.startswith("mhim") else {}
    options = {key: value for key, value in options.items() if not key.startswith(("width", "merge_tokens"))}
    name = case if case in ("mean", "max") else None
    check(file, head, name, **(SHOWN.get(case, {}) | options))


@pytest.mark.parametrize("case", ["clam_sb", "clam_sb_plain", "clam_mb"])
def test_old_files_of_clam_load(case: str, tmp_path: Path) -> None:
    head = moved(case)
    plain = case == "clam_sb_plain"
    pairs = [(".3.module.3.", ".3.module.2.")] if plain else []
    weights = renamed(
        head, *pairs, ("attention_net.3.", "attention_net.2."), ("attention_net.", "attention_net.module.")
    )
    weights["instance_loss_fn.labels"] = torch.arange(2)
    torch.save(weights, tmp_path / "s_0_checkpoint.pt")
    check(tmp_path / "s_0_checkpoint.pt", head, samples=3)


def test_dtfds_file_of_four_dicts_loads(tmp_path: Path) -> None:
    head = moved("dtfd")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in head.state_dict().items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[f"module.{rest}"] = value
    torch.save(parts, tmp_path / "model.pt")
    check(tmp_path / "model.pt", head)


@pytest.mark.parametrize("old", ["i_classifier.fc.", "i_classifier.0.", "i_classifier."])
def test_variants_of_dsmil_load(old: str, tmp_path: Path) -> None:
    head = moved("dsmil_nonlinear")
    weights = renamed(head, ("i_classifier.fc.0.", old))
    weights["i_classifier.feature_extractor.conv1.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "aggregator.pth")
    check(tmp_path / "aggregator.pth", head)


@pytest.mark.parametrize("baseline", ["attn", "selfattn", "dsmil"])
def test_files_of_both_versions_of_mhim_load(baseline: str, tmp_path: Path) -> None:
    first = moved("mhim_first", baseline=baseline)
    weights = {key.replace("feature.", "patch_to_emb."): value for key, value in first.student.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "first.pt")
    check(tmp_path / "first.pt", first)
    second = moved("mhim", baseline=baseline)
    weights = second.student.state_dict()
    weights["merge.global_q_mm"] = weights["merge.global_q"].clone()
    torch.save(weights, tmp_path / "second.pt")
    check(tmp_path / "second.pt", second)
    again = load_head(tmp_path / "second.pt")
    for one, other in zip(again.student.parameters(), again.teacher.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_lightning_file_of_transmil_loads(tmp_path: Path) -> None:
    head = moved("transmil")
    weights = {f"model.{key}": value for key, value in head.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 7}, tmp_path / "epoch=7.ckpt")
    check(tmp_path / "epoch=7.ckpt", head)


class Hostile:
    """Would run a command if it were unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"model": moved("abmil").state_dict(), "conf": Hostile(tmp_path / "touched")}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        load_head(tmp_path / "bad.pt")
    assert not (tmp_path / "touched").exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        load_head(file)
    torch.save(moved("mean").state_dict(), file)
    with pytest.raises(ValueError, match="fit both mean and max"):
        load_head(file)
    with pytest.raises(ValueError, match=r"does not hold a head abmil: it has no dimreduction\.fc1\.weight"):
        load_head(file, "abmil")
    torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(ValueError, match=r"not those of a known head \(fc\.weight"):
        load_head(file)
    weights = moved("abmil").state_dict() | {"extra.weight": torch.zeros(1)}
    del weights["attention.attention_weights.bias"]
    torch.save(weights, file)
    with pytest.raises(ValueError, match=r"missing: attention\.attention_weights\.bias; unexpected: extra\.weight"):
        load_head(file)
    torch.save({"epoch": 3}, file)
    with pytest.raises(ValueError, match="holds no weights by name"):
        load_head(file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="damaged, or holds more"):
        load_head(file)
