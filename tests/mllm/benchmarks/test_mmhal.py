"""MMHal-Bench and its judge's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regard.mllm.benchmarks.mmhal import MMHal, read_judgements, write_for_judge

ROWS = [
    {
        "question_type": kind, "image_id": "same", "image_src": f"https://example.org/x/{number}.jpg",
        "image_content": ["dog"], "question": "What is there?", "gt_answer": "A dog.", "model_answer": "",
    }
    for number, kind in enumerate(["attribute", "attribute", "counting"])
]  # fmt: skip


def write(folder: Path) -> Path:
    (folder / "response_template.json").write_text(json.dumps(ROWS))
    return folder


def test_what_was_read_goes_to_the_judge_with_the_answers(tmp_path: Path) -> None:
    samples = MMHal().samples(write(tmp_path))
    assert [(one.id, one.image, one.part) for one in samples] == [
        ("0", "0.jpg", "attribute"),
        ("1", "1.jpg", "attribute"),
        ("2", "2.jpg", "counting"),
    ]
    write_for_judge(samples, ["a", "b", "\u00e9"], tmp_path / "out" / "answers.json")
    written = json.loads((tmp_path / "out" / "answers.json").read_text(encoding="utf-8"))
    assert written == [row | {"model_answer": text} for row, text in zip(ROWS, ["a", "b", "\u00e9"], strict=True)]
    with pytest.raises(ValueError, match="got 1 answers to 3 questions"):
        write_for_judge(samples, ["a"], tmp_path / "answers.json")


def test_marks_are_read_from_replies(tmp_path: Path) -> None:
    samples = MMHal().samples(write(tmp_path))
    replies = ["Fine.\nRating: 6", {"choices": [{"message": {"content": "rating: 2"}}]}, "Rating: 3 or rating: 4"]
    (tmp_path / "judge.json").write_text(json.dumps(replies))
    assert read_judgements(tmp_path / "judge.json", samples) == pytest.approx(
        {"score": 8 / 3, "hallucination": 2 / 3, "unreadable": 1, "score_attribute": 4, "score_counting": 0}
    )


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        (["Rating: 1"], "has 1 replies to 3 questions"),
        ({"a": 1}, "has no list of replies"),
        (["", "", {"choices": []}], "reply 3 is not a text"),
    ],
)
def test_replies_that_do_not_fit_are_errors(tmp_path: Path, replies: object, message: str) -> None:
    samples = MMHal().samples(write(tmp_path))
    (tmp_path / "judge.json").write_text(json.dumps(replies))
    with pytest.raises(ValueError, match=message):
        read_judgements(tmp_path / "judge.json", samples)


def test_a_file_of_another_form_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "response_template.json").write_text('[{"question": "?"}]')
    with pytest.raises(ValueError, match="question 1 has no 'image_src'"):
        MMHal().samples(tmp_path)
