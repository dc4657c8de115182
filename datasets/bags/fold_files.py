"""Folds as the files of CLAM: `splits_0.csv` and so on.

`splits_K.csv` has a column of slides for each part, the shorter ones padded with empty cells. As CLAM does, we
also write `splits_K_bool.csv` with a line for each slide, and `splits_K_descriptor.csv` with the number of slides of
each class; these are not read.

Source: create_splits_seq.py of mahmoodlab/CLAM@53e2409.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from ...whole_files import whole_file
from .bag import Bags, Fold
from .folds import check_fold
from .slide_table import slide_name

__all__ = ["read_folds", "write_folds"]

_PARTS = ("train", "val", "test")


def write_folds(folder: str | Path, bags: Bags, folds: Sequence[Fold]) -> None:
    """Write folds to a folder, which is created.

    Example:
        >>> import tempfile
        >>> from . import make_folds, open_bags
        >>> bags = open_bags("ucsb")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_folds(folder, bags, make_folds(bags))
        ...     read_folds(folder, bags) == make_folds(bags)
        True
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    survival = bags.bags[0].event is not None
    for number, fold in enumerate(folds):
        parts = [[bags.bags[index] for index in part] for part in (fold.train, fold.val, fold.test)]
        ids = [[bag.id for bag in part] for part in parts]
        columns = zip_longest(*ids, fillvalue="")
        _write(target / f"splits_{number}.csv", ([line, *slides] for line, slides in enumerate(columns)))
        flags = ([slide, *(index == own for own in range(3))] for index, part in enumerate(ids) for slide in part)
        _write(target / f"splits_{number}_bool.csv", flags)
        names = ["censored", "event"] if survival else bags.classes
        outcomes = [[bag.event if survival else bag.label for bag in part] for part in parts]
        counts = ([name, *(part.count(index) for part in outcomes)] for index, name in enumerate(names))
        _write(target / f"splits_{number}_descriptor.csv", counts)


def read_folds(folder: str | Path, bags: Bags) -> list[Fold]:
    """Read `splits_0.csv`, `splits_1.csv` and so on, in the order of their numbers.

    Slides that are not listed are not used in that fold.

    Args:
        folder: the folder of the files.
        bags: the bags to divide.

    Raises:
        ValueError: there are no files, a column is missing, a slide is unknown or listed twice, a patient is in two
            parts, or a part has only one class; with the file.
    """
    found = {}
    for path in Path(folder).glob("splits_*.csv"):
        match = re.fullmatch(r"splits_(\d+)\.csv", path.name)
        if match:
            found[int(match[1])] = path
    if not found:
        raise ValueError(f"{folder} holds no splits_0.csv; give a folder of split files as CLAM writes them")
    indices = {bag.id: index for index, bag in enumerate(bags.bags)}
    return [_read(path, bags, indices) for _, path in sorted(found.items())]


def _read(path: Path, bags: Bags, indices: dict[str, int]) -> Fold:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            head = [column.strip() for column in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8: {error}") from error
    if [column for column in head if column in _PARTS] != list(_PARTS):
        raise ValueError(f"{path} needs the columns train, val and test, it has {', '.join(head) or 'none'}")
    parts: dict[str, list[int]] = {name: [] for name in _PARTS}
    part_of_slide: dict[int, str] = {}
    part_of_patient: dict[str, str] = {}
    for line, cells in lines:
        for name, cell in zip(head, cells, strict=False):
            if name not in _PARTS or cell.strip() in ("", "nan"):
                continue
            slide = slide_name(cell, f"{path} line {line}")
            if slide not in indices:
                raise ValueError(
                    f"{path} line {line}: slide {slide} of {name!r} is not in {bags.name}; "
                    "extract its features, or remove it from the file"
                )
            index = indices[slide]
            if index in part_of_slide:
                raise ValueError(f"{path} line {line}: slide {slide} is in {name!r} and in {part_of_slide[index]!r}")
            patient = bags.bags[index].patient
            if part_of_patient.setdefault(patient, name) != name:
                raise ValueError(
                    f"{path} line {line}: slide {slide} of {name!r} is of patient {patient}, who is also in "
                    f"{part_of_patient[patient]!r}; if that is intended, remove the column case_id from the table"
                )
            part_of_slide[index] = name
            parts[name].append(index)
    fold = Fold(*(sorted(parts[name]) for name in _PARTS))
    check_fold(bags, fold, f"{path}")
    return fold


def _write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", *_PARTS])
        writer.writerows(rows)
