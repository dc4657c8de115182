"""Read the table of slides: a CSV file as in CLAM, one slide per line.

    case_id,slide_id,label          case_id,slide_id,time,event
    patient_0,slide_0,tumour        patient_0,slide_0,31.5,1

`case_id` may be missing: each slide then counts as one patient. `event` is 1 if it happened and 0 if the
observation ended before (CLAM's relatives have the reverse in a column `censorship`).

Source: dataset_csv of mahmoodlab/CLAM@53e2409.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SlideRow", "read_slide_table", "slide_name", "sort_labels"]

_SLIDE_SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi", ".sdpc"),
    *(".h5", ".pt"),
)
_EVENTS = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}


@dataclass(frozen=True)
class SlideRow:
    """A line of the table.

    Attributes:
        line: its number, from 1.
        slide: name of the slide without the suffix of a file.
        patient: the case.
        label: as it is written; None for survival.
        time: until the event or the end of the observation; None for classification.
        event: whether it happened.
    """

    line: int
    slide: str
    patient: str
    label: str | None = None
    time: float | None = None
    event: bool | None = None


def read_slide_table(path: str | Path, *, label: str = "label", task: str = "classification") -> list[SlideRow]:
    r"""Read the table of slides.

    Args:
        path: the CSV file.
        label: name of the column of labels.
        task: `classification` reads the label of each slide, `survival` its time and event.

    Raises:
        ValueError: there is no table, a column is missing, a value is empty or invalid, a slide is listed twice, or
            the name of a slide is a path; with the line where known.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "slides.csv").write_text("case_id,slide_id,label\np,a.svs,tumour\n")
        ...     read_slide_table(f"{folder}/slides.csv")[0].slide
        'a'
    """
    table = Path(path)
    if not table.is_file():
        raise ValueError(f"there is no table {table}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            head = [column.strip() for column in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is not a CSV table in UTF-8: {error}") from error
    survival = task == "survival"
    needed = ["slide_id", *(("time", "event") if survival else (label,))]
    missing = [column for column in needed if column not in head]
    if missing:
        hint = "" if survival else "; choose the column of labels with label=NAME"
        if "censorship" in head and survival:
            hint = "; event is 1 - censorship"
        raise ValueError(
            f"{table} lacks the column {' and '.join(map(repr, missing))}, it has {', '.join(head) or 'none'}{hint}"
        )
    twice = sorted({column for column in head if head.count(column) > 1 and column})
    if twice:
        raise ValueError(f"{table} has the column {twice[0]!r} twice")
    rows: list[SlideRow] = []
    seen: dict[str, int] = {}
    for line, cells in lines:
        if not any(cells):
            continue
        where = f"{table} line {line}"
        if len(cells) != len(head):
            raise ValueError(f"{where} has {len(cells)} values for {len(head)} columns")
        values = dict(zip(head, cells, strict=True))
        slide = slide_name(values["slide_id"], where)
        if slide in seen:
            raise ValueError(f"{where}: slide {slide} is in line {seen[slide]} already")
        seen[slide] = line
        patient = values.get("case_id") or slide
        if survival:
            rows.append(SlideRow(line, slide, patient, None, *_outcome(values, f"{where}, slide {slide}")))
            continue
        if not values[label]:
            raise ValueError(f"{where}: slide {slide} has no label; fill in {label!r} or remove the line")
        rows.append(SlideRow(line, slide, patient, values[label]))
    if not rows:
        raise ValueError(f"{table} lists no slides")
    return rows


def slide_name(text: str, where: str) -> str:
    """Return the name of a slide without the suffix of its file.

    Raises:
        ValueError: it is empty, or a path.

    Example:
        >>> slide_name("TCGA-A1.5F2E.svs", "line 2")
        'TCGA-A1.5F2E'
    """
    name = text.strip()
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    name = stem if suffix.lower() in _SLIDE_SUFFIXES else name
    if not name:
        raise ValueError(f"{where} has no slide_id")
    if "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
        raise ValueError(f"{where}: the slide_id {text!r} is a path; give the name of a slide, without folders")
    return name


def sort_labels(labels: set[str]) -> list[str]:
    """Sort labels into the order of classes: numerically if all are integers, otherwise as text.

    Example:
        >>> sort_labels({"10", "9"}), sort_labels({"tumour", "normal"})
        (['9', '10'], ['normal', 'tumour'])
    """
    numbers = all(label.lstrip("-").isdecimal() for label in labels)
    return sorted(labels, key=int) if numbers else sorted(labels)


def _outcome(values: dict[str, str], where: str) -> tuple[float, bool]:
    event = _EVENTS.get(values["event"].lower())
    if event is None:
        raise ValueError(f"{where}: event is {values['event']!r}; expected 1 (it happened) or 0 (censored)")
    try:
        time = float(values["time"])
    except ValueError:
        time = math.nan
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"{where}: time is {values['time']!r}; expected a number of at least 0")
    return time, event
