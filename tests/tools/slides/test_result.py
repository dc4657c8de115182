"""Results of slides on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regard.tools.slides.result import SlideResult, check_id, read_result, read_results, write_result

STRANGE = "Präparat 7 \"<b>\" #2 100% 'x'"


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    result = SlideResult(
        id=STRANGE,
        path="/slides/a.svs",
        status="done",
        warnings=("ink",),
        label="tumour",
        probabilities={"normal": 0.25, "tumour": 0.75},
        mpp=0.25,
        seconds={"tissue": 1.5},
        files={"page": f"pages/{STRANGE}/index.html"},
    )
    assert read_result(write_result(tmp_path, result)) == result
    assert read_results(tmp_path) == [result]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    path = write_result(tmp_path, SlideResult(id="a", path="a.svs", mpp=float("inf"), seconds={"x": float("nan")}))
    assert json.loads(path.read_text())["seconds"] == {"x": None}
    assert read_result(path).mpp is None


def test_entries_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    path = write_result(tmp_path, SlideResult(id="a", path="a.svs"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "pink"}))
    assert read_result(path).id == "a"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"id": "a", "path": 3}', '{"id": "a", "path": "b", "status": "great"}']
)
def test_another_file_is_named_and_counts_as_failed(tmp_path: Path, content: str) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "odd.json").write_text(content)
    with pytest.raises(ValueError, match=r"odd.json does not hold the result of a slide .*; delete it and run again"):
        read_result(tmp_path / "slides" / "odd.json")
    assert [(one.id, one.status) for one in read_results(tmp_path)] == [("odd", "failed")]


@pytest.mark.parametrize("name", ["", " ", ".hidden", "a/b", "..", "a\\b", "a\nb", "x" * 201])
def test_no_file_is_named_after_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        check_id(name)
