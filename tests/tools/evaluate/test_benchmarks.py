"""Every published benchmark through `regard evaluate`, from files of its own form to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import run
from PIL import Image

from regard.mllm.benchmarks.chair_words import COCO_CLASSES

QUICK = [
    "--resamples",
    "20",
    "--costs",
    "0",
    "--attention_samples",
    "0",
    "--max_new_tokens",
    "4",
    "--fix",
    "vdd(alpha=0.5)",
]


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def coco(folder: Path) -> None:
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(3)]
    for name in names:
        draw(folder / "val2014" / name)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    objects = [{"image_id": number, "category_id": number % 2} for number in range(3)]
    categories = [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
    captions = [{"image_id": number, "caption": "A person with a pet."} for number in range(3)]
    whole = {"images": images, "annotations": objects, "categories": categories}
    write(folder / "annotations" / "instances_val2014.json", whole)
    write(folder / "annotations" / "captions_val2014.json", {"images": images, "annotations": captions})


def amber(folder: Path) -> None:
    draw(folder / "AMBER_1.jpg")
    notes = [{"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]}]
    notes.append({"id": 1005, "type": "discriminative-hallucination", "truth": "no"})
    write(folder / "annotations.json", notes)
    write(folder / "relation.json", {"dog": ["puppy"], "cat": ["kitten"]})
    write(folder / "safe_words.txt", "image\n")
    rows = [{"id": one["id"], "image": "AMBER_1.jpg", "query": "Is there a cat?"} for one in notes]
    write(folder / "query" / "query_all.json", rows)


def mme(folder: Path) -> None:
    draw(folder / "existence" / "1.png")
    write(folder / "existence" / "1.txt", "Is there a dog?\tYes\nIs there a cat?\tNo\n")


def hallusionbench(folder: Path) -> None:
    shared = {"category": "VS", "subcategory": "map", "set_id": "0", "question_id": "0", "question": "Is it?"}
    draw(folder / "hallusion_bench" / "VS" / "map" / "0_1.png")
    name = "./hallusion_bench/VS/map/0_1.png"
    rows = [
        {**shared, "figure_id": "0", "visual_input": "0", "gt_answer": "1", "filename": None},
        {**shared, "figure_id": "1", "visual_input": "1", "gt_answer": "0", "filename": name},
    ]
    write(folder / "HallusionBench.json", rows)


def mmhal(folder: Path) -> None:
    draw(folder / "a.jpg")
    row = {"image_src": "http://somewhere/a.jpg", "question": "Which colour?", "question_type": "attribute"}
    write(folder / "response_template.json", [{**row, "gt_answer": "red"}])


def captioning(folder: Path) -> None:
    draw(folder / "mine" / "a.jpg")


@pytest.mark.parametrize(
    ("make", "text", "parts", "parsers"),
    [
        (coco, "chair(images=2)", ["all"], ["official", "fixed"]),
        (coco, 'chair:images=0,prompt="Tell me, what is there?",mode=fixed', ["all"], ["fixed", "official"]),
        (amber, "amber", ["generative", "existence", "all", "mean"], ["amber", "official"]),
        (mme, "mme", ["existence"], ["mme", "official"]),
        (hallusionbench, "hallusionbench", ["VS"], ["vlmevalkit", "official"]),
        (mmhal, "mmhal", ["attribute"], ["words"]),
        (captioning, "captioning:prompt=Describe it.", ["all"], ["words"]),
    ],
)
def test_a_benchmark_is_asked_scored_and_reported(
    make: Callable[[Path], None], text: str, parts: list[str], parsers: list[str], tmp_path: Path
) -> None:
    make(tmp_path / "data")
    name, out = text.partition(":")[0].partition("(")[0], tmp_path / "out"
    assert run("evaluate", "lvlm", "--benchmark", text, "--data", tmp_path / "data", *QUICK, "--out", out) == 0
    found = json.loads((out / "summary.json").read_text())["benchmarks"][name]
    assert [part["part"] for part in found["parts"]] == parts
    assert list(found["parts"][0]["parsers"])[:2] == parsers
    assert found["paired"] == found["samples"] > 0
    assert (out / "report.html").stat().st_size > 50_000
    before = (out / "summary.json").read_bytes()
    assert run("score", out, "--resamples", "20") == 0
    assert (out / "summary.json").read_bytes() == before


def test_the_authors_synonyms_take_the_place_of_our_table(tmp_path: Path) -> None:
    coco(tmp_path / "data")
    theirs = [", ".join([name, "pet"] if name == "dog" else [name]) for name in COCO_CLASSES]
    write(tmp_path / "synonyms.txt", "\n".join(theirs))
    out = tmp_path / "out"
    words = ["--benchmark", "chair:images=0", "--data", tmp_path / "data", "--synonyms", tmp_path / "synonyms.txt"]
    assert run("evaluate", "lvlm", *words, *QUICK, "--out", out) == 0
    samples = [json.loads(line) for line in (out / "chair" / "samples.jsonl").read_text().splitlines()[1:]]
    assert [one["truth"]["official"] for one in samples] == [
        ["dog", "person"],
        ["cat", "dog", "person"],
        ["dog", "person"],
    ]


def test_benchmarks_of_one_folder_run_together(tmp_path: Path) -> None:
    coco(tmp_path / "data")
    row = {"question_id": 1, "image": f"COCO_val2014_{0:012d}.jpg", "text": "Is there a dog in the image?"}
    write(tmp_path / "data" / "coco_pope_random.json", json.dumps({**row, "label": "yes"}))
    words = ["--benchmark", "chair:images=0", "--benchmark", "pope", "--data", tmp_path / "data"]
    assert run("evaluate", "lvlm", *words, *QUICK, "--out", tmp_path / "out") == 0
    assert list(json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]) == ["chair", "pope"]
