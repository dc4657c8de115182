"""Files of benchmarks: read with errors in plain words, and answers matched to questions by id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .contract import Sample

__all__ = ["field_of", "files_in", "find_images", "read_answer_file", "read_json", "read_json_lines", "read_text"]

#: Folders in which COCO has its images.
_IMAGE_FOLDERS = ("", "val2014", "train2014", "val2017", "train2017", "images")
#: Keys under which answer files keep the id of a question, and what was answered; the first that is there is taken.
ID_KEYS = ("id", "question_id", "image_id")
ANSWER_KEYS = ("answer", "response", "caption", "text")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: there is no such file, it cannot be read, it is not UTF-8, or it is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}; check the name") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 (byte {error.start}); convert it or get it again") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; get it again")
    return text


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: as `read_text`, or the text is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that has one JSON object a line, or one JSON list of them.

    Raises:
        ValueError: as `read_text`, or a line is not a JSON object; the message names it.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows, what = read_json(path), "item"
    else:
        rows, what = [], "line"
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {what} {number} is not an object with named fields but {str(row)[:40]!r}")
    if not rows:
        raise ValueError(f"{path} has no entries; get it again")
    return rows


def field_of(row: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of an object in a file.

    Args:
        row: the object.
        key: of the field.
        kind: what the value must be.
        where: file and line, for the error.

    Raises:
        ValueError: the field is missing or of another kind.

    Example:
        >>> field_of({"label": "yes"}, "label", str, "pope.json, line 1")
        'yes'
    """
    if key not in row:
        raise ValueError(f"{where} has no {key!r}; it has {', '.join(map(str, row)) or 'nothing'}")
    value = row[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join({str: "text", int: "a whole number", list: "a list", dict: "an object"}[k] for k in kinds)
        raise ValueError(f"{where} has {key} = {str(value)[:40]!r}; it must be {wanted}")
    return value


def files_in(folder: Path, patterns: Sequence[str], expected: str) -> list[Path]:
    """The files of a folder that fit one of the patterns, by name; a file is itself.

    Args:
        folder: a folder, or one file.
        patterns: as for `Path.glob`.
        expected: what should be there, for the error.

    Raises:
        ValueError: there is no such folder, or nothing in it fits.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; expected {expected}")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not found:
        raise ValueError(f"{folder} has none of the files that are needed; expected {expected}")
    return found


def find_images(folder: Path, samples: Iterable[Sample]) -> tuple[dict[str, Path], list[str]]:
    """Where the images of questions are: in a folder, or in one of COCO's inside it, under either of COCO's names.

    What is COCO_val2014_000000000042.jpg in 2014 is 000000000042.jpg in 2017.

    Args:
        folder: of images.
        samples: the questions; those without an image are passed over.

    Returns:
        `image` of a question -> file, and the names of images that are not there.

    Raises:
        ValueError: there is no such folder, or a name leads out of it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the one that has the images")
    folders = [one for one in (folder / name for name in _IMAGE_FOLDERS) if one.is_dir()]
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in dict.fromkeys(sample.image for sample in samples if sample.image):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"a question is about the image {name}, which cannot be in a folder of images")
        files = (parent / one for parent in folders for one in dict.fromkeys((name, name.rpartition("_")[2])))
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            missing.append(name)
        else:
            found[name] = file
    return found, missing


def read_answer_file(path: Path, samples: Sequence[Sample]) -> list[str]:
    """Answers from a file, in the order of the samples.

    A line has an id (`id`, `question_id` or `image_id`) and an answer (`answer`, `response`, `caption` or `text`). The
    id is that of the sample, or its last part where that is unique ("12" for "random-12"), as published answer files
    have it. Where no line has an id, as in POPE's own files, the numbers of answers and questions must agree, in their
    order; a `question` next to the answer must be that of the sample.

    Raises:
        ValueError: an answer is missing, double, or of no question: the file belongs to another benchmark or split.
    """
    rows = read_json_lines(path)
    if not any(key in row for row in rows for key in ID_KEYS):
        return _in_order(path, rows, samples)
    short: dict[str, list[str]] = {}
    for sample in samples:
        short.setdefault(sample.id.rsplit("-", 1)[-1], []).append(sample.id)
    known = {sample.id for sample in samples}
    answers: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}, line {number}"
        id_key = next((key for key in ID_KEYS if key in row), ID_KEYS[0])
        given = str(field_of(row, id_key, (str, int), where))
        candidates = [given] if given in known else short.get(given, [])
        if not candidates:
            raise ValueError(f"{where} answers a question {given!r} that is not asked; is it of another benchmark?")
        if len(candidates) > 1:
            raise ValueError(f"{where}: the id {given!r} fits {', '.join(candidates[:3])}; score one split at a time")
        if candidates[0] in answers:
            raise ValueError(f"{where} answers {given!r} for the second time; keep one answer a question")
        answers[candidates[0]] = _answer_of(row, where)
    missing = [sample.id for sample in samples if sample.id not in answers]
    if missing:
        raise ValueError(f"{path} has no answer to {len(missing)} of {len(samples)} questions, e.g. {missing[0]!r}")
    return [answers[sample.id] for sample in samples]


def _in_order(path: Path, rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> list[str]:
    if len(rows) != len(samples):
        raise ValueError(
            f"{path} has {len(rows)} answers without ids to {len(samples)} questions; give each its id, or one file "
            "for the questions of one split"
        )
    answers = []
    for number, (row, sample) in enumerate(zip(rows, samples, strict=True), 1):
        asked = row.get("question", sample.question)
        if not isinstance(asked, str) or asked.split() != sample.question.split():
            raise ValueError(
                f"{path}, line {number} answers {str(asked)[:60]!r}, and question {number} is "
                f"{sample.question[:60]!r}: the order is another one, or the benchmark"
            )
        answers.append(_answer_of(row, f"{path}, line {number}"))
    return answers


def _answer_of(row: Mapping[str, Any], where: str) -> str:
    return field_of(row, next((key for key in ANSWER_KEYS if key in row), ANSWER_KEYS[0]), str, where)
