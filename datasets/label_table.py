"""A table of images and labels: `labels.csv` in the folder of the images.

With one label an image, and optionally its split:

    path,label,split
    a/1.jpg,cat,train

Several labels are separated by `|`, or have a column of 0 and 1 each:

    path,label              path,cat,dog
    a/1.jpg,cat|dog         a/1.jpg,1,1
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .class_folders import SPLIT_NAMES, split_of
from .labelled_images import SPLITS, LabelledImages

__all__ = ["TABLE_NAME", "open_label_table"]

TABLE_NAME = "labels.csv"


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    labels: tuple[str, ...]
    split: str


def open_label_table(folder: str | Path, name: str = TABLE_NAME) -> dict[str, LabelledImages]:
    r"""Open the images that a CSV table lists with their labels; see the head of this module for its columns.

    Paths are relative to the folder and may not leave it. The classes are in the order of their names, or of
    the columns.

    Args:
        folder: folder of the table.
        name: its file name.

    Returns:
        The splits that the table has; all images as "train" if it has no column `split`.

    Raises:
        ValueError: there is no table, columns are unknown, a value is invalid, a path leaves the folder, is listed
            twice or does not exist, there are fewer than two classes, or "train" lacks a class of another split;
            with the line where known.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in "12":
        ...         Image.new("L", (4, 4)).save(f"{folder}/{number}.png")
        ...     _ = (Path(folder) / "labels.csv").write_text("path,label\n1.png,cat|dog\n2.png,dog\n")
        ...     open_label_table(folder)["train"].targets
        array([[1., 1.],
               [0., 1.]], dtype=float32)
    """
    table = Path(folder) / name
    if not table.is_file():
        raise ValueError(f"there is no table {table}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows, columns = _read(csv.reader(file, strict=True), table)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is not a CSV table in UTF-8: {error}") from error
    if not rows:
        raise ValueError(f"{table} lists no images")
    _check_paths(rows, table)
    multi_label = bool(columns) or any(len(row.labels) > 1 for row in rows)
    for row in rows:
        if not row.labels and not multi_label:
            raise ValueError(f"{table} line {row.line}: no label for {row.path}")
    classes = columns or sorted({label for row in rows if row.split == "train" for label in row.labels})
    if len(classes) < 2 and not multi_label:
        raise ValueError(f"{table} has {len(classes)} class to train on; there is nothing to classify")
    found = {}
    for split in SPLITS:
        part = [row for row in rows if row.split == split]
        if part:
            paths = [os.fspath(table.parent / row.path) for row in part]
            targets = _targets(part, classes, multi_label, table)
            found[split] = LabelledImages(paths, targets, classes, origin=f"{table} {split}")
    if "train" not in found:
        raise ValueError(f"{table} has no row of the split 'train'")
    return found


def _read(lines: Any, table: Path) -> tuple[list[_Row], list[str]]:
    head = [column.strip() for column in next(lines, [])]
    if "path" not in head:
        raise ValueError(f"{table} needs a column 'path', it has {', '.join(head) or 'none'}")
    if len(set(head)) != len(head) or "" in head:
        raise ValueError(f"{table} has two columns of one name, or one without a name: {', '.join(head)}")
    classes = [column for column in head if column not in ("path", "split", "label")]
    if "label" in head and classes:
        raise ValueError(
            f"{table} has columns that cannot be combined with 'label': {', '.join(classes)}. "
            "Expected path and label; or path and a column of 0 and 1 for each class; and optionally split"
        )
    if "label" not in head and not classes:
        raise ValueError(f"{table} needs a column 'label', or a column of 0 and 1 a class; it has {', '.join(head)}")
    rows = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        line = lines.line_num
        if len(cells) != len(head):
            raise ValueError(f"{table} line {line} has {len(cells)} values for {len(head)} columns")
        row = dict(zip(head, (cell.strip() for cell in cells), strict=True))
        for column in classes:
            if row[column] not in ("0", "1"):
                raise ValueError(f"{table} line {line}: {column} is {row[column]!r}, expected 0 or 1")
        split = split_of(row.get("split", "train"))
        if split is None:
            known = ", ".join(SPLIT_NAMES)
            raise ValueError(f"{table} line {line}: no split is called {row['split']!r}. Known: {known}")
        marked = [column for column in classes if row[column] == "1"]
        labels = marked if classes else [label.strip() for label in row["label"].split("|") if label.strip()]
        rows.append(_Row(line, row["path"], tuple(labels), split))
    return rows, classes


def _check_paths(rows: list[_Row], table: Path) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        where = f"{table} line {row.line}"
        parts = PurePosixPath(row.path).parts + PureWindowsPath(row.path).parts
        absolute = PurePosixPath(row.path).is_absolute() or bool(PureWindowsPath(row.path).anchor)
        if not row.path:
            raise ValueError(f"{where} has no path")
        if absolute or ".." in parts:
            raise ValueError(f"{where}: {row.path!r} leaves the folder; give a path inside of {table.parent}")
        path = os.path.normpath(row.path)
        if path in lines:
            raise ValueError(f"{where}: {row.path} is in line {lines[path]} already")
        lines[path] = row.line
        if not (table.parent / path).is_file():
            raise ValueError(f"{where}: there is no file {table.parent / path}")


def _targets(rows: list[_Row], classes: list[str], multi_label: bool, table: Path) -> np.ndarray:
    number = {name: index for index, name in enumerate(classes)}
    targets = np.zeros((len(rows), len(classes)), dtype=np.float32)
    for index, row in enumerate(rows):
        for label in row.labels:
            if label not in number:
                raise ValueError(f"{table} line {row.line}: no image of the split 'train' has the label {label!r}")
            targets[index, number[label]] = 1
    return targets if multi_label else targets.argmax(axis=1)
