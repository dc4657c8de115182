"""`regard evaluate` for vision-language models: arms over the same questions, stops, shards, and what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import run, start
from PIL import Image

from regard.mllm.benchmarks import Benchmark
from regard.tools.evaluate.scene_benchmarks import SceneCaptions, SceneQuestions

QUICK = ["--resamples", "50", "--costs", "0", "--attention_samples", "0"]
FEW = [*QUICK, "--scenes", "4", "--benchmark", "scene_captions", "--fix", "vdd(alpha=0.5)"]
POPE = [*QUICK, "--benchmark", "pope", "--fix", "vdd(alpha=0.5)", "--max_new_tokens", "3", "--batch_size", "2"]


def files(out: Path) -> dict[str, bytes]:
    """Everything that a run left, but for its settings, in which the folder is named."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("settings.yaml", "report.html")
    }


def scored(out: Path, benchmark: str = "scene_captions") -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())["benchmarks"][benchmark]


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    """Five images of several sizes and modes, and two splits of questions about them."""
    folder = tmp_path / "pope"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index, size in enumerate([(30, 20), (64, 64), (7, 90), (1, 1), (200, 33)]):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if index == 2 else "RGB").save(folder / f"{index}.png")
    for split in ("random", "adversarial"):
        rows = [
            {"question_id": 2 * index + no, "image": f"{index}.png", "text": f"Is there a {thing} in the image?"}
            | {"label": "no" if no else "yes"}
            for index in range(5)
            for no, thing in enumerate(("dog", "cat"))
        ]
        (folder / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_fix_stands_beside_the_baseline_on_the_same_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*FEW, "--fix", "image_scale:factor=2", "--costs", "1", "--attention_samples", "1", "--max_new_tokens", "9"]
    assert run("evaluate", "lvlm", *words, "--out", tmp_path) == 0
    found = scored(tmp_path)
    assert found["arms"] == ["none", "vdd(alpha=0.5)", "image_scale"]
    chair = found["parts"][0]["parsers"]["scenes"]["metrics"]["chair_s_percent"]
    for name, cell in chair.items():
        assert cell["low"] <= cell["value"] <= cell["high"]
        assert (cell["difference"] is None) == (name == "none")
        if name != "none":
            assert cell["difference"]["value"] == pytest.approx(cell["value"] - chair["none"]["value"])
    assert len(list((tmp_path / "scene_captions" / "answers").glob("[!.]*"))) == 3
    assert len((tmp_path / "scene_captions" / "samples.jsonl").read_text().splitlines()) == 5
    costs = json.loads((tmp_path / "scene_captions" / "costs.json").read_text())
    assert costs["arms"]["vdd(alpha=0.5)"]["ratio"]["token"][1] > 1  # reads a second prompt, too
    assert costs["arms"]["none"]["ratio"] == {
        **dict.fromkeys(("prompt", "token", "tokens_per_second"), [1.0] * 3),
        "mb": 1.0,
    }
    assert len(list((tmp_path / "scene_captions" / "attention").iterdir())) == 3
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") + page.count("data:image/png;base64,") == 4 + 3
    assert found["activity"]["vdd(alpha=0.5)"][0]["active"] == 4
    assert "scene_captions, all questions: 4 images" in capsys.readouterr().out


def test_questions_of_files_are_asked_about_images_of_any_size(pope: Path, tmp_path: Path) -> None:
    assert run("evaluate", "lvlm", *POPE, "--data", pope, "--out", tmp_path / "out") == 0
    found = scored(tmp_path / "out", "pope")
    assert [part["part"] for part in found["parts"]] == ["random", "adversarial", "all", "mean"]
    assert (found["samples"], found["paired"], found["images"]) == (20, 20, 5)
    settings = found["settings"]["vdd(alpha=0.5)"]
    assert settings["decoding"]["max_new_tokens"] == 3
    assert settings["intervention"] == "vdd(alpha=0.5)"
    assert json.loads(settings["code"]).keys() == {"regard", "torch", "transformers"}


def test_a_missing_image_stops_before_anything_is_answered(
    pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pope / "3.png").unlink()
    assert run("evaluate", "lvlm", *POPE, "--data", pope, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "1 images are not in" in printed
    assert "3.png (4 of 20 questions of pope)" in printed
    assert "--missing_images skip" in printed
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_missing_and_broken_images_are_skipped_when_asked_named_and_counted(
    pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pope / "3.png").unlink()
    (pope / "1.png").write_bytes((pope / "1.png").read_bytes()[:200])
    words = [*POPE, "--data", pope, "--missing_images", "skip", "--out", tmp_path / "out"]
    for _ in range(2):  # nothing is answered again
        assert run("evaluate", "lvlm", *words) == 1
        found = scored(tmp_path / "out", "pope")
        assert [(one["image"], one["samples"]) for one in found["skipped_images"]] == [("1.png", 4), ("3.png", 4)]
        assert "truncated" in found["skipped_images"][0]["reason"]
        assert "is not in" in found["skipped_images"][1]["reason"]
        assert (found["samples"], found["paired"]) == (20, 12)
        assert found["missing"] == {"none": 8, "vdd(alpha=0.5)": 8}
    captured = capsys.readouterr()
    assert "skipped: 1.png (4 samples)" in captured.out
    assert "they are skipped" in captured.err
    (pope / "1.png").unlink()
    assert run("evaluate", "lvlm", *POPE, "--data", pope, "--out", tmp_path / "else") == 2


def test_a_broken_image_stops_and_the_run_goes_on_when_it_is_mended(
    pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, content = tmp_path / "whole", (pope / "4.png").read_bytes()
    assert run("evaluate", "lvlm", *POPE, "--data", pope, "--out", whole) == 0
    (pope / "4.png").write_bytes(content[:100])
    assert run("evaluate", "lvlm", *POPE, "--data", pope, "--out", tmp_path / "out") == 2
    assert "4.png" in capsys.readouterr().err
    (pope / "4.png").write_bytes(content)
    assert run("evaluate", "lvlm", *POPE, "--data", pope, "--out", tmp_path / "out") == 0
    assert files(tmp_path / "out") == files(whole)


def test_ten_kills_leave_the_files_of_an_unbroken_run(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["regard.tools.evaluate.lvlm"])
    words = [*FEW, "--scenes", "24", "--batch_size", "1", "--max_new_tokens", "12", "--fix", "vhr", "--out"]
    answers, moments, sizes = tmp_path / "broken" / "scene_captions" / "answers", random.Random(1), [0]

    def begin(folder: str) -> multiprocessing.process.BaseProcess:
        process = processes.Process(target=run, args=("evaluate", *words, tmp_path / folder))
        process.start()
        return process

    def size() -> int:
        return sum(path.stat().st_size for path in answers.glob("*.jsonl"))

    for kill in range(10):
        process = begin("broken")
        if kill:  # the first one wherever it is, the others while it answers
            while process.is_alive() and size() <= sizes[-1]:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.1))
        else:
            time.sleep(moments.uniform(0, 1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        sizes.append(size())
    assert sizes[1:] == sorted(set(sizes[1:]))  # every run got further
    for folder in ("broken", "whole"):
        process = begin(folder)
        process.join()
        assert process.exitcode == 0
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    page = (tmp_path / "broken" / "report.html").read_text()
    assert (
        page.replace(str(tmp_path / "broken"), str(tmp_path / "whole"))
        == (tmp_path / "whole" / "report.html").read_text()
    )


def test_shards_join_to_the_tables_of_one_run(tmp_path: Path) -> None:
    words = [*FEW, "--scenes", "7", "--batch_size", "2"]
    assert run("evaluate", "lvlm", *words, "--out", tmp_path / "one") == 0
    for number in (3, 1, 2):
        assert run("evaluate", "lvlm", *words, "--shard", f"{number}/3", "--out", tmp_path / "many") == 0
    assert not (tmp_path / "many" / "summary.json").exists()
    assert run("score", tmp_path / "many", "--resamples", "50") == 0
    assert (tmp_path / "many" / "summary.json").read_bytes() == (tmp_path / "one" / "summary.json").read_bytes()


def test_ray_joins_to_the_tables_of_one_run(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="--engine ray needs Ray, which is an extra")
    assert run("evaluate", "lvlm", *FEW, "--batch_size", "2", "--out", tmp_path / "one") == 0
    process = start(
        ["evaluate", "lvlm", *FEW, "--batch_size", "2", "--engine", "ray", "--workers", "2", "--out", tmp_path / "ray"]
    )
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "shard 1/2 is done" in err
    assert (tmp_path / "ray" / "summary.json").read_bytes() == (tmp_path / "one" / "summary.json").read_bytes()


def test_random_draws_repeat_and_are_the_same_for_all_arms(tmp_path: Path) -> None:
    words = [
        *FEW,
        "--temperature",
        "1.5",
        "--batch_size",
        "2",
        "--max_new_tokens",
        "6",
        "--fix",
        "word_bias:amount=0.1",
    ]
    for name in ("one", "two"):
        run("evaluate", "lvlm", *words, "--out", tmp_path / name)  # the bias may do nothing here
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert run("evaluate", "lvlm", *words, "--seed", "1", "--out", tmp_path / "three") == 0
    texts = [
        [json.loads(line)["text"] for line in path.read_text().splitlines()[1:]]
        for folder in ("one", "three")
        for path in sorted((tmp_path / folder / "scene_captions" / "answers").glob("none*"))
    ]
    assert texts[0] != texts[1]


def test_a_damaged_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "lvlm", *FEW, "--out", tmp_path) == 0
    file = min((tmp_path / "scene_captions" / "answers").glob("[!.]*"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"{broken\n" + b"".join(lines[2:]))
    assert run("evaluate", "lvlm", *FEW, "--out", tmp_path) == 2
    printed = capsys.readouterr().err
    assert file.name in printed
    assert "line 2" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_new_tokens", "9"], "max_new_tokens: None there, 9 here"),
        (["--batch_size", "3"], "batch_size: None there, 3 here"),
        (["--scenes", "5"], "scenes: 4 there, 5 here"),
        (["--seed", "3"], "seed: 0 there, 3 here"),
    ],
)
def test_other_settings_do_not_mix_with_a_run(
    more: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "lvlm", *FEW, "--out", tmp_path) == 0
    before = {**files(tmp_path), "settings": (tmp_path / "settings.yaml").read_bytes()}
    assert run("evaluate", "lvlm", *FEW, *more, "--out", tmp_path) == 2
    assert message in capsys.readouterr().err
    assert {**files(tmp_path), "settings": (tmp_path / "settings.yaml").read_bytes()} == before


def test_another_fix_joins_the_ones_that_are_there(tmp_path: Path) -> None:
    assert run("evaluate", "lvlm", *FEW, "--out", tmp_path) == 0
    assert run("evaluate", "lvlm", *FEW[:-1], "vdd(alpha=1.5)", "--out", tmp_path) == 0
    assert scored(tmp_path)["arms"] == ["none", "vdd(alpha=1.5)"]
    assert run("score", tmp_path, "--resamples", "50") == 0
    assert scored(tmp_path)["arms"] == ["none", "vdd(alpha=1.5)", "vdd(alpha=0.5)"]


def test_a_fix_that_does_nothing_is_said_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FEW[:-1], "var:dimensions=[3],threshold=11", "--out", tmp_path]
    assert run("evaluate", "lvlm", *words) == 1
    assert "was inactive in all samples" in capsys.readouterr().err
    inactive = json.loads((tmp_path / "summary.json").read_text())["inactive_arms"]
    assert inactive == ["var(threshold=11.0, dimensions=[3])"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "scene_caption"], "no benchmark is called 'scene_caption'; did you mean 'scene_captions'?"),
        (["--benchmark", "pope"], "the benchmark pope needs its files: give --data FOLDER"),
        (["--benchmark", "pope", "--data", "nowhere"], "there is no file or folder nowhere"),
        (["--benchmark", "pope", "--data", "."], "has none of the files that are needed"),
        (["--benchmark", "pope:parsers=words", "--data", "."], "has no option 'parsers'; did you mean 'parser'?"),
        (["--benchmark", "chair", "--data", "."], "has none of the files"),
        (["--fix", "vdr"], "no intervention is called 'vdr'; did you mean '"),
        (["--scenes", "1"], "--scenes is 1; give 2 or more"),
        (["--shard", "3/2"], "--shard is '3/2'; give I/N"),
        (["--engine", "ray", "--shard", "1/2"], "make the shards themselves"),
        (["--model", "nowhere", "--benchmark", "scene_captions"], "there is no folder nowhere"),
    ],
)
def test_wrong_settings_are_named(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", "lvlm", *words, "--out", tmp_path / "out") == 2
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
        counted = benchmark.count(sample, answer)["words"]
        assert (counted.numbers["right"], counted.numbers["unknown"]) == (right, unknown)
        assert [f" {name} " in sample.question for name in counted.invented] == [True] * (answer == "yes")


@pytest.mark.parametrize("benchmark", [SceneCaptions(scenes=2), SceneQuestions(scenes=2)], ids=lambda one: one.name)
def test_scene_benchmarks_keep_the_contract(benchmark: Benchmark) -> None:
    assert isinstance(benchmark, Benchmark)
    samples = benchmark.samples(Path())
    assert len({sample.id for sample in samples}) == len(samples)
