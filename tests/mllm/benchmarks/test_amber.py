"""AMBER's questions and descriptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.mllm.benchmarks.amber import AMBER, amber_rounded


def repository(folder: Path, **other: Any) -> Path:
    files: dict[str, Any] = {
        "annotations.json": [
            {"id": 1, "type": "generative", "truth": ["dog", "ball"], "hallu": ["cat"]},
            {"id": 1005, "type": "discriminative-hallucination", "truth": "no"},
            {"id": 1006, "type": "discriminative-attribute-state", "truth": "yes"},
            {"id": 1007, "type": "relation", "truth": "no"},
        ],
        "relation.json": {"dog": ["puppy"], "ball": ["toy"], "cat": ["kitten"], "picture": ["image"]},
        "query/query_all.json": [
            {"id": key, "image": "AMBER_1.jpg", "query": "Is there?"} for key in (1, 1005, 1006, 1007)
        ],
    } | other
    (folder / "query").mkdir()
    (folder / "safe_words.txt").write_text("image\n", encoding="utf-8")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_parts_follow_the_types_of_the_annotations(tmp_path: Path) -> None:
    samples = AMBER().samples(repository(tmp_path))
    assert [one.part for one in samples] == ["generative", "existence", "state", "relation"]


def test_the_positive_class_is_no_and_only_whole_words_count(tmp_path: Path) -> None:
    _, no, yes, also_no = AMBER().samples(repository(tmp_path))
    counted = [AMBER().count(one, text)["amber"] for one, text in ((no, "No"), (yes, "No"), (also_no, "No."))]
    sums = {name: np.array(sum(one.numbers[name] for one in counted)) for name in counted[0].numbers}
    metrics = AMBER().metrics(sums)
    assert (metrics["precision"], metrics["recall"]) == (0.5, 0.5)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert amber_rounded({name: float(value) for name, value in sums.items()}) == {
        "accuracy": 33.3,
        "precision": 50.0,
        "recall": 50.0,
        "f1": 50.0,
    }


def test_descriptions_cover_invent_and_fall_into_traps(tmp_path: Path) -> None:
    sample = AMBER().samples(repository(tmp_path))[0]
    one = AMBER().count(sample, "The image shows two puppies and a kitten. A chair.")["amber"]
    metrics = AMBER().metrics({name: np.array(value) for name, value in one.numbers.items()})
    assert one.parsed == ("image", "puppy", "kitten")
    assert one.invented == ("kitten",)
    assert metrics["chair_percent"] == pytest.approx(100 / 3)
    assert [metrics[f"{name}_percent"] for name in ("cover", "hal", "cog")] == [50, 100, 100]
    assert one.numbers.keys() == AMBER().count(AMBER().samples(tmp_path)[1], "No")["amber"].numbers.keys()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"relation.json": {"dog": []}}, "the annotation 1 has 'ball', which relation.json does not"),
        ({"relation.json": []}, "must map words to lists"),
        ({"annotations.json": [{"id": 3, "type": "relation", "truth": "no"}]}, "the id 1 has no annotation"),
        ({"query/query_all.json": [{"id": 1005, "image": "1", "query": "?"}] * 2}, "the id 1005 is there twice"),
        ({"query/query_all.json": []}, "has no entries"),
    ],
)
def test_damaged_files_are_errors(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AMBER().samples(repository(tmp_path, **files))


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*annotations\.json"):
        AMBER().samples(tmp_path)
    with pytest.raises(ValueError, match="no task 'attribute'"):
        AMBER(task="attribute")
