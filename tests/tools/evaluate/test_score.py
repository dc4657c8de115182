"""`regard score`: answers of files and of runs, scored without a model, and what it refuses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobs import run
from PIL import Image

SPLITS = ("random", "popular", "adversarial")
QUICK = ["--resamples", "50"]


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    """Twelve images with six questions each, in three splits."""
    folder = tmp_path / "pope"
    folder.mkdir()
    for split in SPLITS:
        rows = [
            {"question_id": 6 * image + index, "image": f"{image}.jpg", "label": "no" if index % 2 else "yes"}
            | {"text": f"Is there a {thing} in the image?"}
            for image in range(12)
            for index, thing in enumerate(("dog", "cat", "cup", "bus", "hot dog", "car"))
        ]
        (folder / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, rows)))
    Image.new("RGB", (40, 30), "red").save(folder / "3.jpg")  # the others are not there
    return folder


def answers(folder: Path, seed: int, right: float = 0.8, ids: bool = True) -> list[dict[str, Any]]:
    """Rows of an answer file."""
    rng, rows = random.Random(seed), []
    for split in SPLITS:
        for line in (folder / f"coco_pope_{split}.json").read_text().splitlines():
            asked = json.loads(line)
            answer = asked["label"] if rng.random() < right else {"yes": "no", "no": "yes"}[asked["label"]]
            row = {"question": asked["text"], "answer": answer.capitalize()}
            rows.append({"id": f"{split}-{asked['question_id']}", **row} if ids else row)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def score(pope: Path, out: Path, *more: str | Path) -> int:
    return run("score", out, "--benchmark", "pope", "--data", pope, *QUICK, *more)


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())["benchmarks"]["pope"]


def test_files_of_answers_are_compared(pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, fix = (write(tmp_path / f"{name}.jsonl", answers(pope, seed, right)) for seed, (name, right) in enumerate(
        {"base": 0.7, "fix": 0.95}.items()
    ))  # fmt: skip
    assert score(pope, tmp_path / "out", "--answers", f"base={base}", "--answers", f"fix={fix}") == 0
    found = summary(tmp_path / "out")
    assert found["arms"] == ["base", "fix"]
    accuracy = found["parts"][0]["parsers"]["official"]["metrics"]["accuracy"]
    rows = [json.loads(line) for line in base.read_text().splitlines()[:72]]
    right = sum((index % 2 == 1) == (row["answer"] == "No") for index, row in enumerate(rows))
    assert accuracy["base"]["value"] == pytest.approx(right / 72)
    assert accuracy["fix"]["difference"]["low"] > 0
    assert "popular" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/") == 1  # the only image that is there
    objects = {one["object"] for one in found["objects"]["official"]["base"]}
    assert objects <= {"cat", "bus", "car"}
    assert objects


def test_neither_the_order_nor_ids_in_place_of_order_change_a_score(pope: Path, tmp_path: Path) -> None:
    rows = answers(pope, 3)
    files = {
        "ids": rows,
        "shuffled": random.Random(0).sample(rows, len(rows)),
        "order": [{key: row[key] for key in ("question", "answer")} for row in rows],
    }
    parts = []
    for name, own in files.items():
        path = write(tmp_path / f"{name}.jsonl", own)
        assert score(pope, tmp_path / name, "--answers", f"x={path}") == 0
        parts.append(summary(tmp_path / name)["parts"])
    assert parts[0] == parts[1] == parts[2]


def test_a_run_is_scored_again_without_its_data(pope: Path, tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", answers(pope, 3)), tmp_path / "out"
    assert score(pope, out, "--answers", f"x={path}") == 0
    first = (out / "summary.json").read_bytes()
    for file in (path, *pope.iterdir()):
        file.unlink()
    assert run("score", out, *QUICK) == 0
    assert (out / "summary.json").read_bytes() == first
    assert run("score", out, "--resamples", "51") == 0
    assert (out / "summary.json").read_bytes() != first


def test_the_summary_is_printed_as_json(pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", answers(pope, 3))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}", "--json", "true") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_scoring_loads_no_torch(pope: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", answers(pope, 3))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}") == 0
    command = f"import sys; from regard.tools import cli; cli.main(['score', {str(tmp_path / 'out')!r}]); sys.exit('torch' in sys.modules)"  # noqa: E501
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", command], capture_output=True).returncode == 0


@pytest.mark.parametrize("form", ["judge", "chair", "amber"])
def test_answers_are_exported_for_judges(pope: Path, tmp_path: Path, form: str) -> None:
    rows = answers(pope, 3)
    path = write(tmp_path / "a.jsonl", rows)
    assert score(pope, tmp_path / "out", "--answers", f"x={path}", "--export", form) == 0
    text = (tmp_path / "out" / "pope" / "export" / f"x.{form}.json").read_text()
    found = [json.loads(line) for line in text.splitlines()] if form == "judge" else json.loads(text)
    key = {"judge": "answer", "chair": "caption", "amber": "response"}[form]
    assert [row[key] for row in found] == [row["answer"] for row in rows]


def test_a_judge_s_marks_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("attribute", "counting")
    asked = [
        {"image_src": f"http://x/{index}.jpg", "question": "Which?", "question_type": kind, "gt_answer": "red"}
        for index, kind in enumerate(kinds)
    ]
    (tmp_path / "response_template.json").write_text(json.dumps(asked))
    rows = [{"id": str(index), "answer": "a red one"} for index in range(2)]
    replies = tmp_path / "replies.json"
    replies.write_text(json.dumps(["Rating: 6", "Rating: 1"]))
    words = ["--benchmark", "mmhal", "--data", tmp_path, "--answers", f"x={write(tmp_path / 'a.jsonl', rows)}", *QUICK]
    words += ["--export", "mmhal", "--judgements", f"x={replies}"]
    assert run("score", tmp_path / "out", *words) == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]["mmhal"]
    assert found["judgements"]["x"]["score"] == 3.5
    assert "x: score 3.50" in capsys.readouterr().out
    exported = json.loads((tmp_path / "out" / "mmhal" / "export" / "x.mmhal.json").read_text())
    assert [row["model_answer"] for row in exported] == ["a red one"] * 2


def bad(pope: Path, tmp_path: Path, content: bytes) -> tuple[int, Path]:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    return score(pope, tmp_path / "out", "--answers", f"x={path}"), tmp_path / "out"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[5]], "for the second time; keep one answer a question"),
        (lambda rows: rows[:-3], "has no answer to 3 of 216 questions, e.g. 'adversarial-69'"),
        (
            lambda rows: [{"id": "AMBER_7", "response": "Yes"}],
            "answers a question 'AMBER_7' that is not asked",
        ),
        (lambda rows: [{"question_id": 3, "answer": "yes"}], "the id '3' fits random-3, popular-3, adversarial-3"),
        (lambda rows: [{"answer": "yes"}], "has 1 answers without ids to 216 questions"),
        (lambda rows: [{**row, "question": "Is it?"} for row in rows], None),
        (lambda rows: [{"question": "Is it?", "answer": "yes"}] * 216, "line 1 answers 'Is it?', and question 1 is"),
        (lambda rows: [{"id": "random-0", "answer": 3}], "answer = '3'; it must be text"),
        (lambda rows: [{"id": "random-0"}], "line 1 has no 'answer'"),
    ],
)
def test_answers_that_do_not_fit_are_named(
    change: Any, message: str | None, pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = change(answers(pope, 0))
    code, out = bad(pope, tmp_path, "\n".join(map(json.dumps, rows)).encode())
    if message is None:
        assert code == 0  # ids decide
        return
    assert code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"id": "random-0", "answer": "caf\xe9"}', "is not text in UTF-8 (byte 33)"),
        (b"{", "line 1 is not JSON"),
        (b"3\n", "line 1 is not an object"),
        ("\ufeff".encode() + b'{"id": "zz", "answer": ""}', "a question 'zz'"),
    ],
)
def test_files_that_are_no_answers_are_named(
    content: bytes, message: str, pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bad(pope, tmp_path, content)[0] == 2
    assert message in capsys.readouterr().err


def test_wrong_words_of_labels_are_named(pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pope / "coco_pope_random.json"
    path.write_text(path.read_text().replace('"label": "no"', '"label": "nein"', 1))
    assert bad(pope, tmp_path, b"{}")[0] == 2
    assert "line 2 has the label 'nein'; a label of POPE is yes or no" in capsys.readouterr().err


def test_questions_that_changed_are_not_mixed_with_the_answers(
    pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.jsonl", answers(pope, 3))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}") == 0
    file = pope / "coco_pope_popular.json"
    file.write_text(file.read_text().replace("bus", "boat"))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}") == 2
    assert "belongs to another evaluation" in capsys.readouterr().err
    write(path, answers(pope, 4))
    assert run("score", tmp_path / "out", *QUICK) == 0
    samples = tmp_path / "out" / "pope" / "samples.jsonl"
    samples.write_text(samples.read_text().replace("bus", "boat"))
    assert run("score", tmp_path / "out", *QUICK) == 2
    assert "answers to other samples" in capsys.readouterr().err


def test_another_file_under_the_same_name_is_refused(
    pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.jsonl", answers(pope, 3))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}") == 0
    write(path, answers(pope, 4))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}") == 2
    assert "has answers with other settings: revision" in capsys.readouterr().err


def test_code_that_a_folder_names_is_not_imported(
    pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.jsonl", answers(pope, 3))
    assert score(pope, tmp_path / "out", "--answers", f"x={path}") == 0
    samples = tmp_path / "out" / "pope" / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"benchmark": "pope"', '"benchmark": "subprocess:Popen"'))
    assert run("score", tmp_path / "out", *QUICK) == 2
    assert "subprocess:Popen, which is not a bundled benchmark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["."], "has no answers"),
        (["out", "--answers", "x=a.jsonl"], "give --benchmark NAME and --data FOLDER"),
        (["out", "--benchmark", "pope", "--data", "pope", "--answers", "a.jsonl"], "is not NAME=FILE"),
        (["out", "--benchmark", "pope", "--data", "pope", "--answers", "x=none"], "'x=none' is not NAME=FILE"),
        (["out", "--benchmark", "pope", "--data", "empty", "--answers", "x=a.jsonl"], "has none of the files"),
        ([".", "--resamples", "0"], "--resamples is 0; give 1 or more"),
    ],
)
def test_wrong_settings_are_named(
    words: list[str],
    message: str,
    pope: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert run("score", *words) == 2
    assert message in capsys.readouterr().err


def test_splits_of_ones_own_images_are_built_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("dog", "apple", "cup", "bus", "bed", "car", "kite", "boat")
    content = {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in range(10)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": [
            {"image_id": image, "category_id": (image + index) % 8} for image in range(10) for index in range(3)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    words = ["build-pope", tmp_path / "instances.json", "--images", "8", "--out", tmp_path / "mine"]
    assert run(*words) == 0
    assert "48 questions about 8 images" in capsys.readouterr().out
    rows = [{"id": f"{split}-{number}", "answer": "Yes"} for split in SPLITS for number in range(1, 49)]
    path = write(tmp_path / "a.jsonl", rows)
    assert score(tmp_path / "mine", tmp_path / "out", "--answers", f"x={path}") == 0
    assert summary(tmp_path / "out")["parts"][0]["parsers"]["official"]["metrics"]["accuracy"]["x"]["value"] == 0.5
    assert run(*words[:3], "99") == 2
    assert "10 images with 3 or more classes, and 99 are wanted" in capsys.readouterr().err
