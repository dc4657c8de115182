from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regard.datasets.bags import Bag, Bags, Fold, make_folds, read_folds, write_folds
from regard.datasets.bags.bag import InMemoryInstances

ONE = InMemoryInstances(np.ones((1, 2), np.float32))
BAGS = Bags(
    [Bag(f"s{index}", f"p{index // 2}", index // 2 % 2) for index in range(12)],
    [ONE] * 12,
    ["normal", "tumour"],
    name="toy",
)


def test_folds_come_back_from_their_files(tmp_path: Path) -> None:
    folds = make_folds(BAGS, 3, val_share=0.3, repeats=4)
    write_folds(tmp_path / "splits", BAGS, folds)
    assert read_folds(tmp_path / "splits", BAGS) == folds


def test_the_files_are_those_of_clam(tmp_path: Path) -> None:
    write_folds(tmp_path, BAGS, [Fold([0, 1, 2, 3], [4, 6], [5, 8, 10])])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "splits_0.csv",
        "splits_0_bool.csv",
        "splits_0_descriptor.csv",
    ]
    assert (tmp_path / "splits_0.csv").read_text() == ",train,val,test\n0,s0,s4,s5\n1,s1,s6,s8\n2,s2,,s10\n3,s3,,\n"
    flags = (tmp_path / "splits_0_bool.csv").read_text().splitlines()
    assert flags[:2] == [",train,val,test", "s0,True,False,False"]
    assert flags[-1] == "s10,False,False,True"
    assert (tmp_path / "splits_0_descriptor.csv").read_text() == ",train,val,test\nnormal,2,1,2\ntumour,2,1,1\n"


def test_files_that_pandas_wrote_are_read(tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,s0.svs,nan,s4\n1,s2,,s6\n")
    assert read_folds(tmp_path, BAGS) == [Fold([0, 2], [], [4, 6])]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (",train,val,test\n0,s0,,s4\n1,s99,,s6\n", "line 3: slide s99 of 'train' is not in toy"),
        (",train,val,test\n0,s0,,s0\n", "line 2: slide s0 is in 'test' and in 'train'"),
        (",train,val,test\n0,s0,,s1\n", "slide s1 of 'test' is of patient p0, who is also in 'train'"),
        (",train,val,test\n0,s0,,s6\n1,s4,,s10\n", "the part 'train' lacks the label 'tumour'"),
        (",train,val,test\n0,../s0,,s6\n", "is a path"),
        (",train,test\n0,s0,s6\n", "needs the columns train, val and test"),
        ("", "needs the columns train, val and test"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "splits_0.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"splits_0\.csv.*{complaint}"):
        read_folds(tmp_path, BAGS)


def test_a_folder_without_files_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no splits_0\.csv"):
        read_folds(tmp_path, BAGS)
