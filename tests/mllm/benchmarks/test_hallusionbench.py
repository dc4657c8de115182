"""HallusionBench: figures and pairs of questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from totals import totals

from regard.mllm.benchmarks.hallusionbench import HallusionBench


def row(category: str, figure: int, question: int, label: str, **other: Any) -> dict[str, Any]:
    return {
        "category": category,
        "subcategory": "map",
        "visual_input": "0" if (category, figure) == ("VS", 0) else "1",
        "set_id": "0",
        "figure_id": str(figure),
        "question_id": str(question),
        "question": "Is it?",
        "gt_answer": label,
        "filename": f"./hallusion_bench/{category}/map/0_{figure}.png",
        **other,
    }


ROWS = [row("VD", 0, 0, "1"), row("VD", 0, 1, "0"), row("VD", 1, 0, "0"), row("VS", 0, 0, "1"), row("VS", 1, 0, "0")]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "HallusionBench.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_questions_without_a_figure_have_no_image_and_are_no_figure(tmp_path: Path) -> None:
    samples = HallusionBench().samples(write(tmp_path, ROWS))
    assert samples[0].image == "hallusion_bench/VD/map/0_0.png"
    assert (samples[3].image, "figure" in samples[3].groups) == ("", False)
    assert [one.part for one in samples] == ["VD"] * 3 + ["VS"] * 2


def test_a_figure_and_a_question_need_all_of_their_answers(tmp_path: Path) -> None:
    samples = HallusionBench().samples(write(tmp_path, ROWS))
    answers = ["Yes", "No", "Yes", "Yes, it is", "No"]
    metrics = totals(HallusionBench(), samples, answers, "vlmevalkit")
    assert [metrics[name] for name in ("a_acc", "f_acc", "q_acc")] == pytest.approx([4 / 5, 2 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], ROWS[0]], "question 2 is there twice: VD, map"),
        ([row("VD", 0, 0, "yes")], "the label 'yes' and the category 'VD'"),
        ([{"question": "Is it?"}], "question 1 has no 'category'"),
    ],
)
def test_damaged_questions_are_errors(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HallusionBench().samples(write(tmp_path, rows))


def test_not_to_know_is_right_where_nothing_is_shown(tmp_path: Path) -> None:
    samples = HallusionBench().samples(write(tmp_path, ROWS))
    right = [HallusionBench().count(one, "I cannot tell.")["words"].correct for one in samples]
    assert right == [False, False, False, True, False]
