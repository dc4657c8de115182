"""The result of a slide: one small JSON file a slide, which the report and the pages read."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ...whole_files import write_atomically
from ..run.strict_json import strict_json

__all__ = ["SlideResult", "check_id", "read_result", "read_results", "write_result"]

Status = Literal["done", "empty", "failed", "unfinished"]

#: Bytes of a name that a file system allows, less its suffix.
_MAX_ID_BYTES = 200
_MAPPINGS = ("probabilities", "spread", "seconds", "files")


@dataclass(frozen=True, kw_only=True)
class SlideResult:
    """A slide of a run.

    Attributes:
        id: name of the slide; its files are named after it.
        path: of the slide, as it was given.
        status: done, empty (no tissue), failed, or unfinished (stages are missing that were not requested).
        reason: why it failed, or what is missing.
        warnings: caveats of the prediction.
        label: the most probable class, if there is a prediction.
        truth: the true class, if it is known.
        probabilities: class -> 0-1, the mean over the folds.
        spread: class -> standard deviation of its probability over the folds; empty for one fold.
        width: at full resolution, in pixels.
        height: at full resolution, in pixels.
        mpp: microns per pixel at full resolution, if it is known.
        objective: magnification of the objective, if it is known.
        vendor: of the scanner, as the reader names it.
        reader: that read the slide.
        tissue: share of the slide that is tissue, 0-1.
        patches: of the grid.
        damaged: patches whose data cannot be read.
        seconds: stage -> its duration.
        files: name -> path in the folder of results, with / between its parts.
    """

    id: str
    path: str
    status: Status = "unfinished"
    reason: str = ""
    warnings: tuple[str, ...] = ()
    label: str | None = None
    truth: str | None = None
    probabilities: Mapping[str, float | None] = field(default_factory=dict)
    spread: Mapping[str, float | None] = field(default_factory=dict)
    width: int = 0
    height: int = 0
    mpp: float | None = None
    objective: float | None = None
    vendor: str = ""
    reader: str = ""
    tissue: float | None = None
    patches: int = 0
    damaged: int = 0
    seconds: Mapping[str, float | None] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def check_id(slide_id: str) -> str:
    """The id, if files can be named after it.

    Raises:
        ValueError: it is empty, too long, or a path.

    Example:
        >>> check_id("Müller 7 #2")
        'Müller 7 #2'
        >>> check_id("../a")
        Traceback (most recent call last):
        ValueError: '../a' cannot name the files of a slide; take out slashes, leading points and control characters
    """
    if len(os.fsencode(slide_id)) > _MAX_ID_BYTES:
        raise ValueError(f"the slide's name {slide_id[:40]!r}... is too long; {_MAX_ID_BYTES} bytes will do")
    if not slide_id.strip() or slide_id.startswith(".") or not slide_id.isprintable() or set(slide_id) & set("/\\"):
        raise ValueError(
            f"{slide_id!r} cannot name the files of a slide; take out slashes, leading points and control characters"
        )
    return slide_id


def write_result(out: Path, result: SlideResult) -> Path:
    """Write OUT/slides/ID.json, whole or not at all.

    Args:
        out: the folder of results.
        result: of the slide; numbers that are not finite are written as null.

    Raises:
        ValueError: no file can be named after the id.

    Example:
        >>> path = write_result(Path("run"), SlideResult(id="a", path="a.svs", status="empty"))
        >>> read_result(path).status
        'empty'
    """
    path = Path(out, "slides", f"{check_id(result.id)}.json")
    write_atomically(path, strict_json(dataclasses.asdict(result), indent=1))
    return path


def read_result(path: Path) -> SlideResult:
    """Read what `write_result` wrote; unknown entries, as of a later version, are ignored.

    Raises:
        ValueError: the file holds something else; it is named.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        wrong = _first_wrong(entries)
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise ValueError(f"{path} does not hold the result of a slide ({wrong}); delete it and run again")
    names = {one.name for one in dataclasses.fields(SlideResult)}
    known = {key: value for key, value in entries.items() if key in names}
    return SlideResult(**known | {"warnings": tuple(known.get("warnings", ()))})


def read_results(out: Path) -> list[SlideResult]:
    """The slides of a run by their names; a file that cannot be read counts as a slide that failed.

    Args:
        out: the folder of results.
    """
    results = []
    for path in sorted(Path(out, "slides").glob("*.json")):
        try:
            results.append(read_result(path))
        except ValueError as error:
            results.append(SlideResult(id=path.stem, path="", status="failed", reason=str(error)))
    return results


def _first_wrong(entries: Any) -> str:
    """What is missing or has another type than it should, as far as the pages depend on it; else nothing."""
    if not isinstance(entries, dict):
        return "it is not a JSON object"
    for name in ("id", "path"):
        if name not in entries:
            return f"it has no {name}"
    number: tuple[type, ...] = (int, float, type(None))
    for names, kinds in (
        (("id", "path", "reason", "vendor", "reader"), (str,)),
        (("label", "truth"), (str, type(None))),
        (("width", "height", "patches", "damaged"), (int,)),
        (("mpp", "objective", "tissue"), number),
        (("warnings",), (list,)),
        (_MAPPINGS, (dict,)),
    ):
        for name in names:
            if name in entries and not isinstance(entries[name], kinds):
                return f"its {name} is {entries[name]!r}"
    parts = [
        (name, value, (str,) if name == "files" else number)
        for name in _MAPPINGS
        for value in entries.get(name, {}).values()
    ]
    parts += [("warnings", words, (str,)) for words in entries.get("warnings", [])]
    for name, value, allowed in parts:
        if not isinstance(value, allowed):
            return f"its {name} hold {value!r}"
    if entries.get("status", "unfinished") not in get_args(Status):
        return f"its status is {entries['status']!r}"
    return ""
