"""Reading answer files: one per arm and shard, with the settings in the first line and then one line per answer.

An unfinished last line is ignored, since its run may be active; any other damaged line is an error that names it.
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

#: In the header; a file of another form is refused.
FORM = "regard answers 1"
#: File names.
SHARD = re.compile(r"(?P<name>.+?)(?:\.(?P<shard>\d+)-of-(?P<shards>\d+))?\.jsonl")


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """One stored answer.

    Attributes:
        id: of the sample.
        text: of the answer.
        tokens: number of its tokens.
        at_limit: whether it was cut at the limit of new tokens.
        activity: what each intervention did, see `activity_summary`.
    """

    id: str
    text: str
    tokens: int
    at_limit: bool
    activity: Sequence[Mapping[str, Any]] = ()


def activity_summary(activity: Iterable[Any]) -> list[dict[str, Any]]:
    """What the interventions did for one answer, in JSON types.

    Args:
        activity: of `regard.mllm.Answer`. `change` and `token_change` are `None` where a token was excluded.

    Example:
        >>> activity_summary([])
        []
    """
    return [
        {
            "intervention": one.intervention,
            "rows": int(one.rows.sum()),
            "heads": int(one.heads.sum()),
            "moved": float(one.moved.sum()),
            "to_image": float(one.to_image.sum()),
            "change": _finite(float(one.change.max())),
            "token_change": _finite(float(one.token_change.max())),
        }
        for one in activity
    ]


class Answers:
    """Answers of one arm from the files of its shards, read again at every iteration.

    Shards are interleaved, so that answers are identified by id and not by order. Of several answers to one sample the
    first counts.

    Args:
        files: of one arm.

    Attributes:
        arm: its settings.
        headers: files and their settings; files without a complete header yet are skipped.
        duplicates: number of answers that the last iteration skipped, since the sample had one.
        unfinished: files whose last line was incomplete at the last iteration.

    Raises:
        ValueError: the files belong to several arms (the differences are listed) or a header is damaged; during
            iteration: a line is damaged, with file and line.
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
            raise ValueError(f"no answers in {', '.join(map(str, files)) or 'no files'}; run the evaluation first")
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
    """Arm name -> its answer files in a folder, shards in order.

    Example:
        >>> find_arms(Path("empty"))
        {}
    """
    found: dict[str, list[tuple[int, int, Path]]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        match = SHARD.fullmatch(path.name)
        if match and path.is_file():
            order = int(match["shards"] or 1), int(match["shard"] or 0), path
            found.setdefault(match["name"], []).append(order)
    return {name: [path for *_, path in sorted(files)] for name, files in found.items()}


def read_answers(folder: Path, name: str) -> Answers:
    """Answers of one arm from all its shards.

    Args:
        folder: of the answers.
        name: of the arm.

    Raises:
        ValueError: the folder has no such arm, or as `Answers`.
    """
    arms = find_arms(folder)
    if name not in arms:
        raise ValueError(f"{folder} has no answers of {name!r}; it has {', '.join(arms) or 'none'}")
    return Answers(arms[name])


def same_settings(arm: Arm, other: Arm, path: Path) -> None:
    """Check that a file has the settings of an arm.

    Raises:
        ValueError: `other`, the settings in `path`, differ from `arm`; the differences are listed.
    """
    if other.hash != arm.hash:
        raise ValueError(
            f"{path} has answers with other settings: {'; '.join(other.changes(arm))}. Choose another folder, or "
            f"remove "
            "the file"
        )


def read_header(path: Path, line: bytes) -> Arm:
    """The settings in the first line of a file.

    Raises:
        ValueError: the line is damaged, has another form, or was edited.
    """
    content = _parse(path, 1, line)
    if content.get("form") != FORM:
        raise ValueError(
            f"{path} is not an answer file: it does not begin with {FORM!r}; remove it, or choose another folder"
        )
    settings = content.get("settings")
    names = {field.name for field in fields(Arm)}
    if not isinstance(settings, dict) or set(settings) != names:
        raise ValueError(f"{path} line 1 lacks settings; it needs {', '.join(sorted(names))}")
    if any(type(value) is not (dict if name == "decoding" else str) for name, value in settings.items()):
        raise ValueError(f"{path} line 1 has settings of a wrong type; they are text, and decoding is a JSON object")
    arm = Arm(**settings)
    if arm.hash != content.get("hash"):
        raise ValueError(
            f"{path} line 1: its settings have the hash {arm.hash}, not {content.get('hash')!r}; was the line edited?"
        )
    return arm


#: Field of a line -> its types.
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
        raise ValueError(f"{path} line {number} is not an answer: it has {sorted(content)} and needs {sorted(_TYPES)}")
    for name, kinds in _TYPES.items():
        if type(content[name]) not in kinds:
            raise ValueError(f"{path} line {number} is damaged: {name} is {type(content[name]).__name__}")
    if not all(isinstance(one, dict) for one in content["activity"]):
        raise ValueError(f"{path} line {number} is damaged: activity is not a list of objects")
    return StoredAnswer(**content)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} line {number} is not UTF-8: {error.reason} at byte {error.start}. Was it saved by an editor? "
            "Remove the line, and the sample is answered again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} line {number} is damaged ({error}). Remove the line, and the sample is answered again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} line {number} is damaged: a JSON object is expected, not {type(content).__name__}")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
