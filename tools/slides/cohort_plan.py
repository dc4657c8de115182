"""The slides of a run, with their IDs, microns per pixel and annotations."""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...datasets.slides.discovery import find_slides
from ..settings import SlideSettings

__all__ = ["SlideTask", "plan_slides"]

_SLIDE_COLUMNS = ("slide", "slide_id", "wsi", "filename")
_MAX_ID_BYTES = 150


@dataclass(frozen=True)
class SlideTask:
    """One slide.

    Attributes:
        id: names its results.
        path: the file, or the folder of a DICOM series.
        mpp: microns per pixel at full resolution; None uses those of the file.
        fallback_mpp: used where the file has none.
        annotations: file with regions to include or exclude.
    """

    id: str
    path: str
    mpp: float | None = None
    fallback_mpp: float | None = None
    annotations: str | None = None


def plan_slides(settings: SlideSettings) -> list[SlideTask]:
    """List the slides of a run, with unique IDs.

    Raises:
        ValueError: there is no slide, or the table or the annotations cannot be read.
    """
    paths = find_slides(_expanded(settings.slides))
    if not paths:
        raise ValueError(f"no slide is in {', '.join(settings.slides)}; give files, or folders that hold some")
    names = _ids(paths)
    values = _read_table(Path(settings.table), {*names, *(path.name for path in paths)}) if settings.table else {}
    tasks = []
    for name, path in zip(names, paths, strict=True):
        own = next((values[key] for key in (str(path), path.name, name) if key in values), None)
        tasks.append(SlideTask(name, str(path), own, settings.slide_mpp, _annotations(settings, name, len(paths))))
    return tasks


def _expanded(patterns: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.exists() or not re.search(r"[*?[]", pattern):
            found.append(path)
            continue
        matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        if not matches:
            raise ValueError(f"no file matches {pattern!r}; quote the pattern, and try it with ls")
        found += matches
    return found


def _ids(paths: Sequence[Path]) -> list[str]:
    """The shortest unique names of the slides: without suffix, with it, with the folder before it."""
    forms = []
    for path in paths:
        digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        forms.append([path.stem, path.name, f"{path.parent.name}-{path.name}", f"{path.name}-{digest}"])
    level = [0] * len(paths)
    while True:
        names = [_file_name(form[depth]) for form, depth in zip(forms, level, strict=True)]
        twice = {name for name, count in Counter(name.casefold() for name in names).items() if count > 1}
        if not twice or min(level) == 3:
            return names
        level = [min(3, depth + (name.casefold() in twice)) for name, depth in zip(names, level, strict=True)]


def _file_name(name: str) -> str:
    """A name of limited length without characters that file names cannot have."""
    name = "".join(character if character.isprintable() and character not in "/\\" else "_" for character in name)
    name = re.sub(r"^\.+|^\s+$", "_", name) or "_"
    if len(name.encode("utf-8", "surrogateescape")) <= _MAX_ID_BYTES:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return name.encode("utf-8", "surrogateescape")[: _MAX_ID_BYTES - 9].decode("utf-8", "ignore") + "-" + digest


def _read_table(file: Path, known: set[str]) -> Mapping[str, float]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as content:
            rows = list(csv.DictReader(content))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--table {file} cannot be read: {error}") from error
    column = next((name for name in _SLIDE_COLUMNS if rows and name in rows[0]), None)
    if column is None or "mpp" not in rows[0]:
        raise ValueError(f"--table {file} needs a row at least, and the columns slide and mpp")
    values: dict[str, float] = {}
    for number, row in enumerate(rows, 2):
        name, text = (row[column] or "").strip(), (row["mpp"] or "").strip()
        if not text:
            continue
        try:
            values[name] = float(text)
        except ValueError:
            raise ValueError(f"{file}, line {number}: the mpp of {name} is {text!r}; give microns per pixel") from None
        if not 0.01 <= values[name] <= 100:
            raise ValueError(f"{file}, line {number}: the mpp of {name} is {text}; microns per pixel are 0.01 to 100")
        if name not in known and Path(name).name not in known:
            sys.stderr.write(f"{file}, line {number}: no slide is called {name}\n")
    return values


def _annotations(settings: SlideSettings, name: str, count: int) -> str | None:
    if settings.annotations is None:
        return None
    index = Path(settings.annotations)
    if index.is_dir():
        file = index / f"{name}.geojson"
        return str(file) if file.is_file() else None
    if not index.is_file():
        raise ValueError(f"--annotations {index} is not there; give a folder of ID.geojson, or the file of one slide")
    if count > 1:
        raise ValueError(
            f"--annotations {index} is one file, but there are {count} slides; give a folder of ID.geojson"
        )
    return str(index)
