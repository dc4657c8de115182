"""POPE and CHAIR count as the authors' own scripts did, to the last digit.

`--golden DIR` reads pope_*.json and chair_*.json in DIR/mllm, or in DIR itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.mllm.benchmarks.chair import CHAIR, count_caption, objects_of_image
from regard.mllm.benchmarks.chair_words import read_caption
from regard.mllm.benchmarks.pope import score_in_order
from regard.mllm.benchmarks.singular import official_singular
from regard.mllm.benchmarks.yes_no import PARSERS

HERE = Path(__file__).parent
SCORERS = {"official": "official", "vcd_script": "vcd", "lmms_eval": "lmms_eval"}
METRICS = {"CHAIRs": "chair_s", "CHAIRi": "chair_i", "Recall": "recall"}
COUNTS = {
    "captions": "captions",
    "coco_words": "mentions",
    "hallucinated_words": "invented_mentions",
    "gt_objects": "objects",
}


def score_files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.json")) or sorted(folder.glob(f"*/{kind}_*.json"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in ("pope", "chair"):
        if f"{kind}_case" in metafunc.fixturenames:
            folder = Path(metafunc.config.getoption("--golden") or HERE).resolve()
            files = score_files(folder, kind)
            if not files:  # another area's folder
                missing = pytest.param(None, marks=pytest.mark.skip(f"no {kind}_*.json in {folder}"))
                metafunc.parametrize(f"{kind}_case", [missing])
                continue
            cases = [json.loads(path.read_text("utf-8")) for path in files]
            metafunc.parametrize(f"{kind}_case", cases, ids=[path.stem for path in files])


def test_pope_counts_as_the_published_scripts_do(pope_case: dict[str, Any]) -> None:
    labels = [question["label"] for question in pope_case["questions"]]
    known = [scorer for scorer in SCORERS if scorer in pope_case]
    assert known, f"no scorer of {', '.join(SCORERS)} in the case"
    for scorer in known:
        ours = score_in_order(labels, pope_case["answers"], SCORERS[scorer])
        if "parsed" in pope_case[scorer]:
            said = [
                PARSERS[SCORERS[scorer]](text, label) for text, label in zip(pope_case["answers"], labels, strict=True)
            ]
            assert said == pope_case[scorer]["parsed"]
        for name, value in pope_case[scorer].items():
            if name not in ("reference", "parsed"):
                assert ours[name] == pytest.approx(value, abs=1e-12, rel=0, nan_ok=True), (scorer, name)


def test_chair_counts_as_the_published_script_does(chair_case: dict[str, Any]) -> None:
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
        assert overall[METRICS[name]] == pytest.approx(value, abs=1e-12, rel=0, nan_ok=True), name
    for name, value in chair_case.get("counts", {}).items():
        assert sums[COUNTS[name]] == value, name
