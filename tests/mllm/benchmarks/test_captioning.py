"""Free captions, and files for judges elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from regard.mllm.benchmarks import Sample
from regard.mllm.benchmarks.captioning import Captioning, export_answers

SAMPLES = [
    Sample(id="7", image="7.jpg", question="Describe it.", truth=["dog"]),
    Sample(id="b", image="b", question="?"),
]


def test_every_image_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.JPG", "in/a.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [one.image for one in Captioning().samples(tmp_path)] == ["b.JPG", "in/a.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images"):
        Captioning().samples(tmp_path / "empty")


def test_repetition_and_empty_captions_show() -> None:
    counted = [Captioning().count(SAMPLES[0], text)["words"] for text in ("a b c d a b c d.", "")]
    sums = {name: np.array(sum(one.numbers[name] for one in counted)) for name in counted[0].numbers}
    metrics = Captioning().metrics(sums)
    assert (metrics["words"], metrics["repeated_percent"], metrics["empty_percent"]) == (4, 20, 50)


def test_answers_are_written_in_the_forms_of_judges(tmp_path: Path) -> None:
    answers = ["A dog.", "\N{LATIN SMALL LETTER E WITH ACUTE}"]
    for form in ("chair", "amber", "judge"):
        export_answers(SAMPLES, answers, tmp_path / form, form)
    assert json.loads((tmp_path / "chair").read_text("utf-8"))[0] == {"image_id": 7, "caption": "A dog."}
    assert json.loads((tmp_path / "amber").read_text("utf-8"))[1] == {"id": "b", "response": answers[1]}
    first = json.loads((tmp_path / "judge").read_text("utf-8").splitlines()[0])
    assert (first["question"], first["truth"], first["answer"]) == ("Describe it.", ["dog"], "A dog.")
    with pytest.raises(ValueError, match="no form of answers is called 'xml'; known: chair"):
        export_answers(SAMPLES, answers, tmp_path / "x", "xml")
    with pytest.raises(ValueError, match="got 1 answers to 2 questions"):
        export_answers(SAMPLES, answers[:1], tmp_path / "x")
