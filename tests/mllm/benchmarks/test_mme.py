"""MME's two forms of files, and its scores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from totals import totals

from regard.mllm.benchmarks.mme import HALLUCINATION, MME, SUBTASKS

TWO = "Is there a dog? Please answer yes or no.\tYes\nIs there a cat? Please answer yes or no.\tNo\n"


def release(folder: Path, parts: tuple[str, ...] = HALLUCINATION) -> None:
    for part in parts:
        (folder / part).mkdir()
        for image in ("1", "2"):
            (folder / part / f"{image}.txt").write_text(TWO, encoding="utf-8")
            (folder / part / f"{image}.png").touch()


def score(folder: Path, answers: list[str], subtasks: str = "hallucination") -> dict[str, float]:
    benchmark = MME(subtasks=subtasks)
    samples = benchmark.samples(folder)
    return totals(benchmark, samples, answers, "mme")


def test_a_perfect_model_has_800_points(tmp_path: Path) -> None:
    release(tmp_path)
    metrics = score(tmp_path, ["Yes", "No"] * 8)
    assert (metrics["score"], metrics["hallucination"], metrics["existence"]) == (800, 800, 200)
    assert math.isnan(metrics["perception"])


def test_both_answers_of_an_image_must_be_right_for_the_second_half(tmp_path: Path) -> None:
    release(tmp_path, ("existence",))
    metrics = score(tmp_path, ["Yes", "No", "Yes", "Yes"], "existence")
    assert (metrics["existence"], metrics["accuracy"]) == (75 + 50, 0.75)
    assert math.isnan(metrics["hallucination"])


def test_images_are_found_in_both_layouts(tmp_path: Path) -> None:
    for name in ("questions_answers_YN", "images"):
        (tmp_path / "artwork" / name).mkdir(parents=True)
    (tmp_path / "artwork" / "questions_answers_YN" / "7.txt").write_text(TWO, encoding="utf-8")
    (tmp_path / "artwork" / "images" / "7.jpg").touch()
    (tmp_path / "OCR.txt").write_text("".join(f"8.jpg\t{line}\n" for line in TWO.splitlines()), encoding="utf-8")
    samples = MME(subtasks="all").samples(tmp_path)
    assert [one.image for one in samples] == ["artwork/images/7.jpg"] * 2 + ["OCR/8.jpg"] * 2
    assert [one.id for one in samples][:2] == ["artwork-7-1", "artwork-7-2"]
    release(tmp_path, ("color",))
    assert MME().samples(tmp_path)[0].image == "color/1.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Is there a dog? Yes", "line 1 is 'Is there a dog. Yes'; it must be question and yes or no"),
        (TWO + "Is it?\tNo", "has {'yes': 1, 'no': 2} for labels"),
        ("Is it?\tNo", "one yes and one no each"),
        ("", "is empty"),
    ],
)
def test_damaged_questions_are_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "count" / "1.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        MME().samples(tmp_path)


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the subtasks existence, count"):
        MME().samples(tmp_path)
    with pytest.raises(ValueError, match="no subtask 'colour'"):
        MME(subtasks="colour")
    assert len(SUBTASKS) == 14
