"""POPE's questions, scores, and splits of your own images."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.mllm.benchmarks import Sample
from regard.mllm.benchmarks.pope import POPE, POPE_SPLITS, score_in_order
from regard.mllm.benchmarks.pope_build import build_pope, pope_question, write_pope
from regard.mllm.benchmarks.reading import read_answer_file
from regard.mllm.benchmarks.yes_no import PARSERS


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def question(key: int = 1, **other: Any) -> dict[str, Any]:
    return {"question_id": key, "image": "1.jpg", "text": "Is there an egg in the imange?", "label": "yes", **other}


def test_published_questions_are_read_as_they_are(tmp_path: Path) -> None:
    for split in POPE_SPLITS:
        write_lines(tmp_path / f"coco_pope_{split}.json", [question(1), question(2, label="no")])
    samples = POPE(suffix=" One word.").samples(tmp_path)
    assert [sample.id for sample in samples[:3]] == ["random-1", "random-2", "popular-1"]
    assert samples[0].question == "Is there an egg in the imange? One word."
    assert {sample.part for sample in samples} == set(POPE_SPLITS)


def test_a_wrong_yes_invents_what_was_asked_beside_what_is_known_to_be_there(tmp_path: Path) -> None:
    asked = "Is there a hot dog in the image?"
    samples = POPE().samples(write_lines(tmp_path / "pope.json", [question(1), question(2, text=asked, label="no")]))
    assert [sample.present for sample in samples] == [("egg",), ("egg",)]
    for answer, invented in (("Yes", ("hot dog",)), ("No", ())):
        assert POPE().count(samples[1], answer)["official"].invented == invented
    assert POPE().count(samples[0], "Yes")["official"].invented == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([question(1), question(1)], "line 2: the question_id 1 is there twice"),
        ([question(label="maybe")], "the label 'maybe'; a label of POPE is yes or no"),
        ([{"question_id": 1}], "line 1 has no 'label'"),
        ([question(text=3)], "text = '3'; it must be text"),
    ],
)
def test_damaged_questions_are_errors(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        POPE().samples(write_lines(tmp_path / "pope_random.json", rows))


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "not text in UTF-8"), (b"", "is empty"), (b"{", "line 1 is not JSON")]
)
def test_files_that_are_no_questions_are_errors(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "pope_random.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        POPE().samples(tmp_path)


def test_a_folder_without_questions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the files .* coco_pope_adversarial\.json"):
        POPE().samples(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        POPE().samples(tmp_path / "missing")


def test_two_files_of_a_split_are_an_error(tmp_path: Path) -> None:
    for start in ("coco", "gqa"):
        write_lines(tmp_path / f"{start}_pope_random.json", [question()])
    with pytest.raises(ValueError, match="both of the split random"):
        POPE().samples(tmp_path)


def test_answers_are_matched_by_id(tmp_path: Path) -> None:
    samples = POPE().samples(write_lines(tmp_path / "pope_random.json", [question(1), question(2, label="no")]))
    path = write_lines(tmp_path / "a.jsonl", [{"question_id": 2, "text": "two"}, {"id": "random-1", "answer": "one"}])
    assert read_answer_file(path, samples) == ["one", "two"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 7, "answer": "yes"}], "'7' that is not asked; is it of another benchmark"),
        ([{"id": 1, "answer": "yes"}], "no answer to 1 of 2 questions, e.g. 'random-2'"),
        ([{"id": 1, "answer": "yes"}, {"id": 1, "answer": "no"}], "for the second time"),
        ([{"question": "Is there?", "answer": "yes"}], "has 1 answers without ids to 2 questions"),
        ([{"id": 1, "answer": "yes"}, {"answer": "no"}], "line 2 has no 'id'"),
    ],
)
def test_answers_to_other_questions_are_errors(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    samples = POPE().samples(write_lines(tmp_path / "pope_random.json", [question(1), question(2)]))
    with pytest.raises(ValueError, match=message):
        read_answer_file(write_lines(tmp_path / "a.jsonl", rows), samples)


def test_sums_of_counts_give_the_scores_of_the_script(tmp_path: Path) -> None:
    labels, answers = ["yes", "no", "yes", "no"], ["Yes", "Yes.", "No, no", "Nope"]
    rows = [question(number, label=label) for number, label in enumerate(labels)]
    samples = POPE().samples(write_lines(tmp_path / "pope_popular.json", rows))
    for parser in PARSERS:
        counted = [POPE().count(one, text)[parser] for one, text in zip(samples, answers, strict=True)]
        sums = {name: np.array(sum(one.numbers[name] for one in counted)) for name in counted[0].numbers}
        metrics, script = POPE().metrics(sums), score_in_order(labels, answers, parser)
        for name in ("accuracy", "precision", "recall", "f1"):
            assert metrics[name] == pytest.approx(script[name], nan_ok=True), (parser, name)
    assert next(iter(POPE(parser="words").count(samples[0], "Yes"))) == "words"


def test_metrics_of_resamples_are_elementwise_and_nan_without_answers() -> None:
    numbers = POPE().count(Sample(id="1", image="1", question="?", truth="yes"), "Yes")["official"].numbers
    metrics = POPE().metrics({name: np.array([0.0, 2 * value]) for name, value in numbers.items()})
    assert math.isnan(metrics["accuracy"][0])
    assert (metrics["accuracy"][1], metrics["yes_percent"][1]) == (1, 100)


def instances(tmp_path: Path) -> Path:
    names = ["dog", "cat", "cup", "apple", "bus", "kite", "bed", "tie"]
    there = {1: [0, 1, 2], 2: [0, 1, 3], 3: [0, 2, 3, 4], 4: [0, 5], 5: [6, 7, 4], 6: [0, 1]}
    data = {
        "images": [{"id": key, "file_name": f"{key}.jpg"} for key in there],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": key, "category_id": one} for key, classes in there.items() for one in [*classes, classes[0]]
        ],
    }
    path = tmp_path / "instances_val.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_built_splits_ask_about_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    splits = build_pope(instances(tmp_path), 0, images=4)
    there = {"1.jpg": "dog cat cup", "2.jpg": "dog cat apple", "3.jpg": "dog cup apple bus", "5.jpg": "bed tie bus"}
    for questions in splits.values():
        assert [one["label"] for one in questions] == ["yes", "no"] * 12
        assert len({(one["image"], one["text"]) for one in questions}) == 24
        for one in questions:
            name = str(one["text"]).split()[3]
            assert (name in there[str(one["image"])].split()) == (one["label"] == "yes")
    assert splits == build_pope(instances(tmp_path), 0, images=4) != build_pope(instances(tmp_path), 1, images=4)
    assert len(POPE().samples(write_pope(splits, tmp_path / "pope")[0].parent)) == 72


@pytest.mark.parametrize("seed", range(3))
def test_popular_asks_about_frequent_and_adversarial_about_companions(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    names = ["person", "dog", "apple", "car", "orange", "cup", "bus", "kite", "oven", "tie"]
    there = {
        f"{number}.jpg": list(dict.fromkeys(draw.choices(names, weights=range(10, 0, -1), k=draw.randint(1, 8))))
        for number in range(40)
    }
    data = {
        "images": [{"id": number, "file_name": file} for number, file in enumerate(there)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": number, "category_id": names.index(name)}
            for number, classes in enumerate(there.values())
            for name in classes
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    splits = build_pope(path, seed, images=12)
    images = list(dict.fromkeys(str(one["image"]) for one in splits["popular"]))
    everything = [name for image in images for name in there[image]]
    for split, questions in splits.items():
        asked = [str(one["text"]).split()[3] for one in questions]
        for position in range(0, len(questions), 2):
            image, present, absent = str(questions[position]["image"]), asked[position], asked[position + 1]
            used = {*there[image], *asked[position - position % 6 : position]}
            assert present == there[image][position % 6 // 2]
            assert absent in set(everything) - used
            counts = Counter(everything)
            if split == "adversarial":
                counts = Counter(
                    name for one in images if present in there[one] for name in there[one] if name != present
                )
            best = max((count for name, count in counts.items() if name not in used), default=0)
            if split != "random" and best:
                assert counts[absent] == best
            if split == "popular":
                first = [name for name in dict.fromkeys(everything) if counts[name] == best and name not in used]
                assert absent == first[0]


def test_the_misspelling_of_the_authors_is_there_when_asked_for() -> None:
    assert pope_question("egg", imange=True) == "Is there an egg in the imange?"
    assert pope_question("egg") == "Is there an egg in the image?"
    assert pope_question("dog", imange=True) == "Is there a dog in the image?"


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 4 images with 3 or more classes, and 500 are wanted"):
        build_pope(instances(tmp_path), 0)


def test_labels_and_answers_must_go_together() -> None:
    with pytest.raises(ValueError, match="got 1 answers to 2 questions"):
        score_in_order(["yes", "no"], ["yes"])
