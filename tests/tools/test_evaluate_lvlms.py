"""`regard evaluate` without a model: arms over the same scenes, going on after a stop, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jobs import run

from regard.mllm.benchmarks import Benchmark
from regard.tools.scene_benchmarks import SceneCaptions, SceneQuestions

FEW = ["--scenes", "4", "--resamples", "50", "--benchmark", "scene_captions", "--fix", "vdd:alpha=0.5"]


def answers(out: Path) -> dict[str, str]:
    """Files of answers without the seconds that they took."""
    files = sorted((out / "answers").iterdir())
    return {path.name: re.sub(r'"seconds": ?[\d.e-]+', "", path.read_text()) for path in files}


def test_a_fix_stands_beside_the_baseline_on_the_same_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", *FEW, "--fix", "image_scale:factor=2", "--out", tmp_path) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    scored = summary["benchmarks"]["scene_captions"]
    assert scored["arms"] == ["none", "vdd:alpha=0.5", "image_scale:factor=2"]
    chair = scored["parts"][0]["parsers"]["scenes"]["metrics"]["chair_s_percent"]
    for name, cell in chair.items():
        assert cell["low"] <= cell["value"] <= cell["high"]
        assert (cell["difference"] is None) == (name == "none")
        if name != "none":
            assert cell["difference"]["value"] == pytest.approx(cell["value"] - chair["none"]["value"])
    assert len(answers(tmp_path)) == 3
    assert "scene_captions: 4 images" in capsys.readouterr().out


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in (whole, broken):
        assert run("evaluate", *FEW, "--batch_size", "1", "--out", out) == 0
    first = sorted((broken / "answers").iterdir())[0]
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:3]) + lines[3][:9])  # killed in the middle of the third answer
    sorted((broken / "answers").iterdir())[1].unlink()
    (broken / "summary.json").unlink()
    assert run("evaluate", *FEW, "--batch_size", "1", "--out", broken) == 0
    assert answers(broken) == answers(whole)
    figures = [
        json.loads((out / "summary.json").read_text())["benchmarks"]["scene_captions"] for out in (broken, whole)
    ]
    assert figures[0]["parts"][0]["parsers"] == figures[1]["parts"][0]["parsers"]


def test_a_damaged_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *FEW, "--out", tmp_path) == 0
    file = sorted((tmp_path / "answers").iterdir())[0]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"{broken\n" + b"".join(lines[2:]))
    assert run("evaluate", *FEW, "--out", tmp_path) == 2
    said = capsys.readouterr().err
    assert file.name in said
    assert "line 2" in said


def test_another_option_makes_another_file(tmp_path: Path) -> None:
    assert run("evaluate", *FEW, "--out", tmp_path) == 0
    assert run("evaluate", *FEW[:-1], "vdd:alpha=1.5", "--out", tmp_path) == 0
    assert len(answers(tmp_path)) == 3  # the baseline's is used again


def test_a_fix_that_does_nothing_is_said_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FEW[:-1], "var:dimensions=[3],threshold=11", "--out", tmp_path]
    assert run("evaluate", *words) == 1
    assert "did nothing in any sample" in capsys.readouterr().err
    assert json.loads((tmp_path / "summary.json").read_text())["did_nothing"] == ["var:dimensions=[3],threshold=11"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "scene_caption"], "no benchmark is called 'scene_caption'; known: scene_captions"),
        (["--fix", "vdr"], "no method is called 'vdr'; did you mean '"),
        (["--scenes", "1"], "give 2 scenes"),
        (["--model", "nowhere", "--benchmark", "scene_captions"], "there is no folder nowhere"),
    ],
)
def test_wrong_settings_are_named(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", *words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_what_a_caption_contributes() -> None:
    benchmark = SceneCaptions(scenes=2)
    sample = benchmark.samples(Path())[0]
    there, absent = sample.truth[0], next(name for name in ("dog", "bus", "pizza", "cup") if name not in sample.truth)
    counted = benchmark.count(sample, f"a {there} . next to the {there} there is a {absent} .")["scenes"]
    assert counted.numbers["mentions"] == 3
    assert (counted.numbers["wrong_mentions"], counted.numbers["found"]) == (1, 1)
    assert list(counted.invented) == [absent]


def test_what_a_yes_or_no_contributes() -> None:
    benchmark = SceneQuestions(scenes=2)
    sample = next(sample for sample in benchmark.samples(Path()) if sample.truth == "no")
    for answer, right, unknown in (("No.", 1, 0), ("yes", 0, 0), ("", 0, 1), ("perhaps", 0, 1)):
        numbers = benchmark.count(sample, answer)["first_word"].numbers
        assert (numbers["right"], numbers["unknown"]) == (right, unknown)


@pytest.mark.parametrize("benchmark", [SceneCaptions(scenes=2), SceneQuestions(scenes=2)], ids=lambda one: one.name)
def test_scene_benchmarks_keep_the_contract(benchmark: Benchmark) -> None:
    assert isinstance(benchmark, Benchmark)
    samples = benchmark.samples(Path())
    assert len({sample.id for sample in samples}) == len(samples)
