"""CHAIR: words, singulars, objects of captions, images that are drawn, and metrics."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.mllm.benchmarks import Sample
from regard.mllm.benchmarks.chair import CHAIR, count_caption, objects_of_image
from regard.mllm.benchmarks.chair_captions import read_caption
from regard.mllm.benchmarks.chair_words import COCO_CLASSES, read_synonyms
from regard.mllm.benchmarks.singular import fixed_singular, official_singular
from regard.mllm.benchmarks.tokens import sentences, words


def names(caption: str, mode: str = "official", synonyms: str = "") -> list[str]:
    return [mention.name for mention in read_caption(caption, mode, synonyms).mentions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog, a cat.", "a dog , a cat ."),
        ("the dog's ball isn't red; he'll cry", "the dog 's ball is n't red ; he 'll cry"),
        ('he said "stop." then (he left).', "he said `` stop . '' then ( he left ) ."),
        ("it cannot be... no", "it can not be ... no"),
        ("a 3,36 m tv at 5:30", "a 3,36 m tv at 5:30"),
        ("plan b. is a dog", "plan b. is a dog"),
        ("row 2. a dog", "row 2. a dog"),
        ("two dogs--one cat", "two dogs -- one cat"),
        ("a dog.a cat", "a dog.a cat"),
        ("a hot-dog & co", "a hot-dog & co"),
        ("", ""),
    ],
)
def test_words_are_those_of_the_treebank(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected


def test_sentences_lose_no_text() -> None:
    text = 'a dog. it says "no." really?! yes... so (so.) end'
    assert "".join(sentences(text)).replace(" ", "") == text.replace(" ", "")
    assert sentences(text) == ["a dog.", 'it says "no."', "really?!", "yes... so (so.)", "end"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'stop.' the dog", "' stop . ' the dog"),
        ("it isn't. the dogs'. cats", "it is n't . the dogs ' . cats"),
        ("dogs.'the", "dogs . ' the"),
        ("a sign reads \u201cstop.\u201d then", "a sign reads \u201c stop . \u201d then"),
        ("1. a dog 2. cats b. x", "1. a dog 2. cats b. x"),
        ("3. wow?! yes", "3 . wow ? ! yes"),
    ],
)
def test_sentences_end_where_nltk_ends_them(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected


@pytest.mark.parametrize(
    "text", ["!?" * 20_000, "a.'" * 20_000, "'" * 20_000, "a" * 20_000, ". " * 20_000, "a.) " * 9_000]
)
def test_a_model_that_repeats_itself_is_read_in_linear_time(text: str) -> None:
    start = time.process_time()
    read_caption(text)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("word", "official", "fixed"),
    [
        ("women", "woman", "woman"),
        ("bus", "bu", "bus"),
        ("buses", "bus", "bus"),
        ("glass", "glas", "glass"),
        ("glasses", "glass", "glass"),
        ("tennis", "tenni", "tennis"),
        ("ties", "ty", "tie"),
        ("knives", "knife", "knife"),
        ("sheep", "sheep", "sheep"),
        ("scissors", "scissors", "scissors"),
        ("cookies", "cookies", "cookies"),
        ("mice", "mouse", "mouse"),
        ("geese", "goose", "goose"),
        ("four", "fmy", "four"),
        ("benches", "bench", "bench"),
        ("potatoes", "potato", "potato"),
        ("skis", "ski", "skis"),
        ("broccoli", "broccoli", "broccoli"),
        ("passers-by", "passer-by", "passer-by"),
        ("dogs'", "dog's", "dogs'"),
    ],
)
def test_singulars_in_both_modes(word: str, official: str, fixed: str) -> None:
    assert (official_singular(word), fixed_singular(word)) == (official, fixed)


@pytest.mark.parametrize(
    ("caption", "official", "fixed"),
    [
        ("A bus.", [], ["bus"]),
        ("Two buses.", ["bus"], ["bus"]),
        ("A tennis racket.", ["tennis racket"], ["tennis racket"]),
        ("A motor bike.", [], ["motorcycle"]),
        ("A cheesecake.", [], ["cake"]),
        ("A stove top oven.", ["oven", "oven"], ["oven"]),
        ("A baby kitten.", ["person", "cat"], ["cat"]),
        ("A baby bird.", ["bird"], ["bird"]),
        ("A wine glass and two wine glasses.", ["wine glass"] * 2, ["wine glass"] * 2),
        ("The seat of the toilet.", ["toilet"], ["toilet"]),
        ("A passenger train on a train track.", ["train"], ["train"]),
        ("A bow tie and a home plate.", ["tie"], ["tie"]),
    ],
)
def test_objects_of_captions_in_both_modes(caption: str, official: list[str], fixed: list[str]) -> None:
    assert (names(caption), names(caption, "fixed")) == (official, fixed)


def test_the_places_behind_a_dropped_seat_are_shifted_as_in_the_script() -> None:
    caption = "A seat, a toilet and a dog."
    assert [one.index for one in read_caption(caption).mentions] == [3, 6]
    assert [one.index for one in read_caption(caption, "fixed").mentions] == [4, 7]


@pytest.mark.parametrize("mode", ["official", "fixed"])
def test_every_class_is_known_by_its_name(mode: str) -> None:
    assert len(COCO_CLASSES) == 80
    lost = {name for name in COCO_CLASSES if names(f"a {name}", mode) != [name]}
    assert lost == ({"bus"} if mode == "official" else set())


def test_a_file_of_synonyms_is_read_with_its_quirks(tmp_path: Path) -> None:
    lines = [f"{name}, {'gizmo' if name in ('tv', 'clock') else name}" for name in COCO_CLASSES]
    lines[0] += ",  wizard"
    path = tmp_path / "synonyms.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    known = read_synonyms(path)
    assert (known["gizmo"], known[" wizard"], "wizard" in known) == ("clock", "person", False)
    assert names("a gizmo and a wizard", synonyms=str(path)) == ["clock"]
    assert names("a gizmo and a wizard", "fixed", str(path)) == ["clock", "person"]


def test_synonyms_without_a_class_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("dog, puppy\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no line for 79 classes"):
        read_synonyms(tmp_path / "s.txt")


def annotations(folder: Path, split: str = "val", first: int = 1) -> None:
    data: dict[str, Any] = {
        "images": [{"id": first + n, "file_name": f"{first + n}.jpg"} for n in range(6)],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": first, "category_id": 18}],
    }
    (folder / f"instances_{split}2014.json").write_text(json.dumps(data), encoding="utf-8")
    data["annotations"] = [{"image_id": first + n, "caption": f"A cat and a bus, {n}."} for n in range(6)]
    (folder / f"captions_{split}2014.json").write_text(json.dumps(data), encoding="utf-8")


def test_images_are_drawn_from_val_with_what_is_in_them(tmp_path: Path) -> None:
    annotations(tmp_path)
    annotations(tmp_path, "train", 101)
    samples = CHAIR(images=0).samples(tmp_path)
    assert [sample.id for sample in samples] == ["1", "2", "3", "4", "5", "6"]
    assert samples[0].truth == {"official": ["cat", "dog"], "fixed": ["bus", "cat", "dog"]}
    assert CHAIR(images=3).samples(tmp_path) == CHAIR(images=3).samples(tmp_path)
    assert CHAIR(images=3).samples(tmp_path) != CHAIR(images=3, seed=1).samples(tmp_path)
    (tmp_path / "ids").write_text("101\n3\n", encoding="utf-8")
    assert [one.id for one in CHAIR(image_list=str(tmp_path / "ids")).samples(tmp_path)] == ["101", "3"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [("dog", "is not the id"), ("9", "is not the id"), ("1\n1", "line 2: the image 1 is there twice")],
)
def test_a_list_of_other_images_is_an_error(tmp_path: Path, ids: str, message: str) -> None:
    annotations(tmp_path)
    (tmp_path / "ids").write_text(ids, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        CHAIR(image_list=str(tmp_path / "ids")).samples(tmp_path)


def test_missing_annotations_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the files that are needed"):
        CHAIR().samples(tmp_path)
    annotations(tmp_path)
    with pytest.raises(ValueError, match="500 images requested, 6 annotated"):
        CHAIR().samples(tmp_path)
    path = tmp_path / "instances_val2014.json"
    path.write_text(path.read_text().replace('"category_id": 18', '"category_id": 5'), encoding="utf-8")
    with pytest.raises(ValueError, match="annotation 1 is about the class 5, which the file does not have"):
        CHAIR(images=1).samples(tmp_path)
    with pytest.raises(ValueError, match="'unicorn' is not one of the 80 classes"):
        objects_of_image(["unicorn"], [])


def test_metrics_are_ratios_of_sums() -> None:
    captions = ["A dog chases a cat and a dog.", "A cat.", "Nothing."]
    counted = [count_caption(read_caption(text), ["dog", "person"]) for text in captions]
    sums = {name: np.array(sum(one.numbers[name] for one in counted)) for name in counted[0].numbers}
    metrics = CHAIR().metrics(sums)
    expected = {"chair_s": 2 / 3, "chair_i": 2 / 4, "recall": 1 / 6, "precision": 1 / 3, "f1": 2 / 9, "words": 14 / 3}
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected)
    assert counted[0].invented == ("cat",)
    assert math.isnan(CHAIR().metrics({name: np.array(0.0) for name in sums})["chair_i"])


def test_the_chosen_mode_comes_first() -> None:
    sample = Sample(id="1", image="1.jpg", question="?", truth={"official": [], "fixed": []})
    assert list(CHAIR(mode="fixed").count(sample, "A bus.")) == ["fixed", "official"]
    assert CHAIR().count(sample, "A bus.")["fixed"].invented == ("bus",)
    with pytest.raises(ValueError, match="no mode 'new'"):
        CHAIR(mode="new")
