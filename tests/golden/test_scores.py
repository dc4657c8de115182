"""POPE and CHAIR count as the authors' own scripts did, to the last digit.

`--golden DIR` reads the JSON files of DIR, or of the folders in it. The first word of a name says what a file is about:
`pope_*.json` has questions, answers and what scorers made of them, `chair_*.json` annotations, captions and the words
found in them. Any other name fails, as does a scorer without a parser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scores import score_files

from regard.mllm.benchmarks.chair import CHAIR, count_caption, objects_of_image
from regard.mllm.benchmarks.chair_captions import read_caption
from regard.mllm.benchmarks.pope import score_in_order
from regard.mllm.benchmarks.singular import official_singular
from regard.mllm.benchmarks.yes_no import PARSERS

HERE = Path(__file__).parent
SCORERS = {"official": "official", "vcd_script": "vcd", "lmms_eval": "lmms_eval"}
SCORERS |= {name: name for name in PARSERS} | {f"{name}_script": name for name in PARSERS}
METRICS = {"CHAIRs": "chair_s", "CHAIRi": "chair_i", "Recall": "recall", "Precision": "precision", "F1": "f1"}
COUNTS = {
    "captions": "captions",
    "coco_words": "mentions",
    "hallucinated_words": "invented_mentions",
    "gt_objects": "objects",
}


def kind_of(path: Path) -> str:
    kind = path.stem.partition("_")[0]
    if kind not in ("pope", "chair"):
        pytest.fail(f"no check for golden scores of the kind {kind!r} ({path.name}); known: pope, chair")
    return kind


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "score_file" in metafunc.fixturenames:  # none in the folder of another area
        files = score_files(Path(metafunc.config.getoption("--golden") or HERE).resolve())
        metafunc.parametrize("score_file", files, ids=[path.stem for path in files])


def test_counts_are_those_of_the_published_scripts(score_file: Path) -> None:
    check = {"pope": check_pope, "chair": check_chair}[kind_of(score_file)]
    check(json.loads(score_file.read_text("utf-8")))


def test_a_kind_of_scores_without_a_check_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="golden scores of the kind 'unheard'"):
        kind_of(Path("unheard_small.json"))


def test_a_scorer_without_a_parser_fails() -> None:
    case = json.loads((HERE / "mllm" / "pope_plain.json").read_text("utf-8"))
    with pytest.raises(pytest.fail.Exception, match="no parser for the scorer 'unheard'"):
        check_pope(case | {"unheard": case["official"]})


def test_a_wrong_score_fails() -> None:
    case = json.loads((HERE / "mllm" / "pope_plain.json").read_text("utf-8"))
    case["official"]["recall"] += 1e-9
    with pytest.raises(AssertionError, match="recall"):
        check_pope(case)


def check_pope(pope_case: dict[str, Any]) -> None:
    labels = [question["label"] for question in pope_case["questions"]]
    scorers = [name for name, value in pope_case.items() if isinstance(value, dict) and "reference" in value]
    assert scorers, "the case has no scorers"
    for scorer in scorers:
        if scorer not in SCORERS:
            pytest.fail(f"no parser for the scorer {scorer!r}; known: {', '.join(SCORERS)}")
        ours = score_in_order(labels, pope_case["answers"], SCORERS[scorer])
        if "parsed" in pope_case[scorer]:
            said = [
                PARSERS[SCORERS[scorer]](text, label) for text, label in zip(pope_case["answers"], labels, strict=True)
            ]
            assert said == pope_case[scorer]["parsed"]
        for name, value in pope_case[scorer].items():
            if name not in ("reference", "parsed"):
                # lmms-eval says 0 where nothing is counted
                got = np.nan_to_num(ours[name]) if scorer == "lmms_eval" else ours[name]
                assert got == pytest.approx(value, abs=1e-12, rel=0, nan_ok=True), (scorer, name)


def check_chair(chair_case: dict[str, Any]) -> None:
    for word, expected in chair_case.get("singular", {}).items():
        assert official_singular(word) == expected, word
    objects = {
        key: objects_of_image(image["instances"], image["reference_captions"])
        for key, image in chair_case["images"].items()
    }
    sums: dict[str, float] = {}
    for given, expected in zip(chair_case["captions"], chair_case["sentences"], strict=True):
        assert (given["image_id"], given["caption"]) == (expected["image_id"], expected["caption"])
        reading = read_caption(given["caption"])
        there = objects[str(given["image_id"])]
        counted = count_caption(reading, there)
        invented = [mention for mention in reading.mentions if mention.name not in there]
        assert list(reading.words) == expected["words"]
        assert [mention.name for mention in reading.mentions] == expected["mscoco_generated_words"]
        assert there == sorted(expected["mscoco_gt_words"])
        assert [[mention.word, mention.name] for mention in invented] == expected["mscoco_hallucinated_words"]
        assert [mention.index for mention in invented] == expected["hallucination_idxs"]
        ours = CHAIR().metrics({name: np.asarray(value) for name, value in counted.numbers.items()})
        for name, value in expected["metrics"].items():  # the script says 0 where nothing is counted
            got = np.nan_to_num(ours[METRICS[name]])
            assert got == pytest.approx(value, abs=1e-12, rel=0), (name, given)
        for name, number in counted.numbers.items():
            sums[name] = sums.get(name, 0.0) + number
    overall = CHAIR().metrics({name: np.asarray(value) for name, value in sums.items()})
    for name, value in chair_case["overall"].items():
        if name == "Len":  # a hundredth of the words of a caption
            name, value = "words", 100 * value
        assert overall[METRICS.get(name, name)] == pytest.approx(value, abs=1e-12, rel=0, nan_ok=True), name
    for name, value in chair_case.get("counts", {}).items():
        assert sums[COUNTS[name]] == value, name
