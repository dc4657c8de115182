from pathlib import Path

import pytest
from PIL import Image

from regard.datasets.label_table import open_label_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.png", "a/3.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_label_an_image_makes_classes(folder: Path) -> None:
    found = open_label_table(write(folder, "path,label", "1.png,dog", "a/3.png,cat"))["train"]
    assert (found.classes, found.targets.tolist(), found.multi_label) == (["cat", "dog"], [1, 0], False)
    assert found[1][0].size == (4, 4)


def test_a_split_column_makes_splits(folder: Path) -> None:
    table = write(folder, "split,label,path", "train,dog,1.png", "train,cat,2.png", "valid,cat,a/3.png")
    assert {split: len(images) for split, images in open_label_table(table).items()} == {"train": 2, "val": 1}


def test_labels_between_bars_make_several_labels(folder: Path) -> None:
    found = open_label_table(write(folder, "path,label", "1.png,dog| cat", "2.png,dog", "a/3.png,"))["train"]
    assert (found.classes, found.targets.tolist()) == (["cat", "dog"], [[1, 1], [0, 1], [0, 0]])


def test_columns_of_zero_and_one_make_several_labels(folder: Path) -> None:
    found = open_label_table(write(folder, "path,owl,cat", "1.png,1,0", "2.png,1,1"))["train"]
    assert (found.classes, found.targets.tolist()) == (["owl", "cat"], [[1, 0], [1, 1]])


def test_byte_order_marks_quotes_and_empty_lines_are_fine(folder: Path) -> None:
    found = open_label_table(write(folder, "\ufeffpath,label", '"1.png","a, b"', "", "2.png,c", ""))["train"]
    assert found.classes == ["a, b", "c"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([""], "needs a column 'path'"),
        (["file,label", "1.png,cat"], "needs a column 'path', it has file, label"),
        (["path,split", "1.png,train"], "needs a column 'label'"),
        (["path,path,label", "1.png,1.png,a"], "two columns of one name"),
        (["path,label,extra", "1.png,cat,1"], "combined with 'label': extra"),
        (["path,label"], "lists no images"),
        (["path,label", "1.png,cat,dog"], "line 2 has 3 values for 2 columns"),
        (["path,cat,dog", "1.png,0,1", "2.png,yes,0"], "line 3: cat is 'yes', expected 0 or 1"),
        (["path,label,split", "1.png,cat,holdout"], "line 2: no split is called 'holdout'"),
        (["path,label", "1.png,cat", "2.png,"], "line 3: no label"),
        (["path,label", "1.png,cat", "9.png,dog"], "line 3: there is no file .*9.png"),
        (["path,label", "1.png,cat", "./1.png,dog"], "line 3: .* is in line 2 already"),
        (["path,label", "../1.png,cat"], "line 2: '../1.png' leaves the folder"),
        (["path,label", "a/../../1.png,cat"], "leaves the folder"),
        (["path,label", "/etc/hostname,cat"], "leaves the folder"),
        (["path,label", "C:\\1.png,cat"], "leaves the folder"),
        (["path,label", "..\\1.png,cat"], "leaves the folder"),
        (["path,label", ",cat"], "line 2 has no path"),
        (["path,label", "1.png,cat", "2.png,cat"], "1 class to train on"),
        (["path,label,split", "1.png,cat,val"], "0 class to train on"),
        (["path,cat,split", "1.png,1,val"], "no row of the split 'train'"),
        (
            ["path,label,split", "1.png,a,train", "2.png,b,train", "a/3.png,c,val"],
            "line 4: .* has the label 'c'",
        ),
        (["path,label", '"1.png,cat'], "not a CSV table"),
    ],
)
def test_a_bad_table_is_explained(folder: Path, lines: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_label_table(write(folder, *lines))


def test_a_table_that_is_no_text_is_explained(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"path,label\n\xff\xfe,1")
    with pytest.raises(ValueError, match="UTF-8"):
        open_label_table(folder)


def test_a_missing_table_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no table .*labels\.csv"):
        open_label_table(folder)
