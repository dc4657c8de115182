from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regard.heads.trained_head import TrainedHead, save_trained_head
from regard.tools.slides.ensemble import Ensemble, find_heads

CPU = torch.device("cpu")


def saved(folder: Path, name: str = "abmil", count: int = 2, **options: object) -> list[Path]:
    folders = [folder / name / f"fold_{fold}_seed_0" / "model" for fold in range(count)]
    for seed, index in enumerate(folders):
        torch.manual_seed(seed)
        save_trained_head(TrainedHead(name, 8, ["normal", "tumour"], {"width": 4}, **options), index)
    return folders


def test_the_folds_vote_and_their_spread_is_told(tmp_path: Path) -> None:
    folders = saved(tmp_path)
    bag = torch.rand(20, 8)
    vote = Ensemble(folders, CPU).predict(bag)
    alone = [Ensemble([folder], CPU).predict(bag) for folder in folders]
    each = torch.stack([one.probabilities for one in alone])
    torch.testing.assert_close(vote.probabilities, each.mean(dim=0))
    torch.testing.assert_close(vote.spread, each.std(dim=0))
    assert not alone[0].spread.any()
    assert vote.attention.sum() == pytest.approx(1)
    assert vote.per_patch.shape == (20, 2)


def test_a_patch_alone_is_judged_as_a_slide_of_that_patch(tmp_path: Path) -> None:
    ensemble = Ensemble(saved(tmp_path, "acmil"), CPU)
    bag = torch.rand(5, 8)
    one = ensemble.predict(bag[3:4]).probabilities
    torch.testing.assert_close(ensemble.predict(bag).per_patch[3], one)


def test_a_head_without_attention_shows_the_class_of_the_slide(tmp_path: Path) -> None:
    ensemble = Ensemble(saved(tmp_path, "mean"), CPU)
    vote = ensemble.predict(torch.rand(5, 8))
    assert vote.attention is None
    assert ensemble.score_maps(vote)[0].name == f"prob_{ensemble.label(vote)}"


def test_survival_is_labelled_by_the_interval_that_half_do_not_outlive(tmp_path: Path) -> None:
    ensemble = Ensemble(saved(tmp_path, task="survival", cuts=[3.0]), CPU)
    vote = ensemble.predict(torch.rand(5, 8))
    early, late = (vote._replace(probabilities=torch.tensor(past)) for past in ([0.2, 0.1], [0.9, 0.4]))
    assert (ensemble.label(early), ensemble.label(late)) == ("normal", "tumour")


def test_heads_are_found_by_the_run_and_one_kind_at_a_time(tmp_path: Path) -> None:
    folders = saved(tmp_path / "runs")
    assert find_heads([str(tmp_path)]) == folders
    saved(tmp_path / "runs", "mean")
    with pytest.raises(ValueError, match="holds heads of 2 kinds"):
        find_heads([str(tmp_path)])
    assert len(find_heads(["embedded"])) == 5


def test_heads_of_other_features_do_not_vote_together(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "a", encoder="uni")[:1], saved(tmp_path / "b", encoder="virchow2")[:1]
    with pytest.raises(ValueError, match="cannot be combined: their encoder"):
        Ensemble([*one, *other], CPU)
