"""Files of answers, read: one file an arm and shard, its settings in the first line, then a line an answer.

An unfinished last line is left out, since its run may be going on; any other line that is damaged is an error that
names it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .arm_settings import Arm

__all__ = [
    "FORM",
    "SHARD",
    "Answers",
    "StoredAnswer",
    "activity_summary",
    "find_arms",
    "read_answers",
    "read_header",
    "same_settings",
]

#: Of the header; a file of another form is refused.
FORM = "regard answers 1"
#: Names of files.
SHARD = re.compile(r"(?P<name>.+?)(?:\.(?P<shard>\d+)-of-(?P<shards>\d+))?\.jsonl")


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """One answer, as it is kept.

    Attributes:
        id: of the sample.
        text: what was said.
        tokens: how many it has.
        at_limit: whether the limit of new tokens cut it off.
        activity: what each method did, see `activity_summary`.
    """

    id: str
    text: str
    tokens: int
    at_limit: bool
    activity: Sequence[Mapping[str, Any]] = ()


def activity_summary(activity: Iterable[Any]) -> list[dict[str, Any]]:
    """What the methods did for one answer, in JSON's types.

    Args:
        activity: of `regard.mllm.Answer`. `change` and `word_change` are `None` where a score was ruled out.

    Example:
        >>> activity_summary([])
        []
    """
    return [
        {
            "method": one.method,
            "rows": int(one.rows.sum()),
            "heads": int(one.heads.sum()),
            "moved": float(one.moved.sum()),
            "to_image": float(one.to_image.sum()),
            "change": _finite(float(one.change.max())),
            "word_change": _finite(float(one.word_change.max())),
        }
        for one in activity
    ]


class Answers:
    """Answers of one arm from the files of its shards, read anew whenever they are iterated over.

    Shards are read in turn, one answer each; a reader goes by ids, not by their order. Of several answers to one
    sample the first counts. An unfinished last line is left out: its run may be going on.

    Args:
        files: of one arm.

    Attributes:
        arm: its settings.
        headers: files and the settings that they begin with; those that have none yet are left out.
        duplicates: answers that were left out by the last reading, since the sample had one.
        unfinished: files whose last line was not whole at the last reading.

    Raises:
        ValueError: the files are of several arms (what differs is listed), a header is damaged; while reading: a line
            is damaged, with file and line.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.duplicates = 0
        self.unfinished: list[Path] = []
        self.headers: list[tuple[Path, Arm]] = []
        for path in self.files:
            with path.open("rb") as file:
                first = file.readline()
            if first.endswith(b"\n"):
                self.headers.append((path, read_header(path, first)))
        if not self.headers:
            raise ValueError(f"no answers in {', '.join(map(str, files)) or 'no files'}; a run writes them")
        self.arm = self.headers[0][1]
        for path, arm in self.headers[1:]:
            same_settings(self.arm, arm, path)

    def __iter__(self) -> Iterator[StoredAnswer]:
        self.duplicates, self.unfinished = 0, []
        seen: set[str] = set()
        with ExitStack() as stack:
            turns = [self._lines(path, stack) for path in self.files]
            while turns:
                for turn in list(turns):
                    answer = next(turn, None)
                    if answer is None:
                        turns.remove(turn)
                    elif answer.id in seen:
                        self.duplicates += 1
                    else:
                        seen.add(answer.id)
                        yield answer

    def _lines(self, path: Path, stack: ExitStack) -> Iterator[StoredAnswer]:
        file = stack.enter_context(path.open("rb"))
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                self.unfinished.append(path)
            elif number > 1:
                yield _answer(path, number, line)
        file.close()


def find_arms(folder: Path) -> dict[str, list[Path]]:
    """Files of answers in a folder by the name of their arm, shards in order.

    Example:
        >>> find_arms(Path("empty"))
        {}
    """
    found: dict[str, list[tuple[int, int, Path]]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        match = SHARD.fullmatch(path.name)
        if match and path.is_file():
            place = int(match["shards"] or 1), int(match["shard"] or 0), path
            found.setdefault(match["name"], []).append(place)
    return {name: [path for *_, path in sorted(places)] for name, places in found.items()}


def read_answers(folder: Path, name: str) -> Answers:
    """Answers of one arm from all its shards.

    Args:
        folder: of the answers.
        name: of the arm.

    Raises:
        ValueError: the folder has no such arm; those that it has are named. Also see `Answers`.
    """
    arms = find_arms(folder)
    if name not in arms:
        raise ValueError(f"{folder} has no answers of {name!r}; it has {', '.join(arms) or 'none at all'}")
    return Answers(arms[name])


def same_settings(arm: Arm, other: Arm, path: Path) -> None:
    """Complain of a file with answers to other settings.

    Raises:
        ValueError: `other`, which `path` begins with, is not `arm`; what differs is listed.
    """
    if other.hash != arm.hash:
        raise ValueError(
            f"{path} has answers to other settings: {'; '.join(other.changes(arm))}. Name another folder, or take the "
            "file away"
        )


def read_header(path: Path, line: bytes) -> Arm:
    """The settings in the first line of a file.

    Raises:
        ValueError: the line is damaged, of another form, or was changed by hand.
    """
    content = _parse(path, 1, line)
    if content.get("form") != FORM:
        raise ValueError(f"{path} does not begin as a file of answers ({FORM!r}); take it away or name another folder")
    settings = content.get("settings")
    names = {field.name for field in fields(Arm)}
    if not isinstance(settings, dict) or set(settings) != names:
        raise ValueError(f"{path} line 1 lacks settings; it needs {', '.join(sorted(names))}")
    if any(type(value) is not (dict if name == "decoding" else str) for name, value in settings.items()):
        raise ValueError(f"{path} line 1 has settings of a wrong type: text each, but a table for decoding")
    arm = Arm(**settings)
    if arm.hash != content.get("hash"):
        raise ValueError(
            f"{path} line 1: its settings have the hash {arm.hash}, not {content.get('hash')!r}: changed by hand?"
        )
    return arm


#: Of each line, what a value must be.
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "tokens": (int,),
    "at_limit": (bool,),
    "activity": (list,),
}


def _answer(path: Path, number: int, line: bytes) -> StoredAnswer:
    content = _parse(path, number, line)
    if set(content) != set(_TYPES):
        raise ValueError(f"{path} line {number} is no answer: it has {sorted(content)} and needs {sorted(_TYPES)}")
    for name, kinds in _TYPES.items():
        if type(content[name]) not in kinds:
            raise ValueError(f"{path} line {number} is damaged: {name} is {type(content[name]).__name__}")
    if not all(isinstance(one, dict) for one in content["activity"]):
        raise ValueError(f"{path} line {number} is damaged: activity is no list of tables")
    return StoredAnswer(**content)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} line {number} is not UTF-8: {error.reason} at byte {error.start}. Was it saved by an editor? Take "
            "the line out, and the sample is answered again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} line {number} is damaged ({error}). Take the line out, and the sample is answered again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} line {number} is damaged: a table is expected, not {type(content).__name__}")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
