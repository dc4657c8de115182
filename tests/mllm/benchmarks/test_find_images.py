"""Images of questions, wherever COCO has put them."""

from __future__ import annotations

from pathlib import Path

import pytest

from regard.mllm.benchmarks.contract import Sample
from regard.mllm.benchmarks.reading import find_images


def samples(*names: str) -> list[Sample]:
    return [Sample(id=name, image=name, question="?") for name in names]


def test_both_names_and_folders_of_coco_are_tried(tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    first, second = tmp_path / "val2014" / "COCO_val2014_01.jpg", tmp_path / "02.jpg"
    first.touch()
    asked = samples("COCO_val2014_01.jpg", "COCO_val2014_02.jpg", "")
    assert find_images(tmp_path, asked) == ({"COCO_val2014_01.jpg": first}, ["COCO_val2014_02.jpg"])
    second.touch()
    assert find_images(tmp_path, asked) == ({"COCO_val2014_01.jpg": first, "COCO_val2014_02.jpg": second}, [])
    with pytest.raises(ValueError, match="there is no folder"):
        find_images(tmp_path / "nowhere", asked)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be in a folder of images"):
        find_images(tmp_path, samples(name))
