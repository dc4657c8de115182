"""Answers on disk: JSON lines that a run appends to, can be killed over, and goes on with.

One file an arm and shard, `NAME.jsonl` or `NAME.2-of-8.jsonl`. Its first line tells the settings and their hash, each
later one an answer. A line is written at once and whole; what a power cut or a full disk leaves of the last one is cut
off when the file is opened to go on. Answers to other settings never share a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = [
    "AnswerWriter",
    "Answers",
    "Arm",
    "StoredAnswer",
    "activity_summary",
    "arm_file_name",
    "find_arms",
    "read_answers",
]

#: Of the header; a file of another form is refused.
FORM = "regard answers 1"

#: Longest name of a file of answers, without its ending.
_LONGEST_NAME = 80
_NAME = re.compile(r"\w[\w.+=,-]*")
_SHARD = re.compile(r"(?P<name>.+?)(?:\.(?P<shard>\d+)-of-(?P<shards>\d+))?\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Everything that an answer depends on besides the sample.

    Attributes:
        benchmark: its name, with the options that change questions.
        model: folder or name.
        revision: of the model, such as a commit or a hash of its files.
        method: description of the interventions, as `regard.mllm.describe` writes them; empty for none.
        prompt: what is put around the question.
        decoding: names and values in JSON's types, such as the limit of new tokens, beams, temperature and seed.
        code: version of this program.

    Raises:
        ValueError: `decoding` holds what JSON does not know.

    Example:
        >>> arm = Arm(benchmark="pope", model="llava", revision="1", method="", prompt="{}", decoding={}, code="0.1")
        >>> arm.hash
        'b5da8895ceabf193'
    """

    benchmark: str
    model: str
    revision: str
    method: str
    prompt: str
    decoding: Mapping[str, Any]
    code: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoding", dict(self.decoding))
        try:
            same = json.loads(_canonical(self.decoding)) == self.decoding
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"decoding takes text, finite numbers, true, false, null, and lists of them: {error}"
            ) from error
        if not same:
            raise ValueError(
                f"settings of decoding must have JSON's types, such as lists for tuples; got {self.decoding}"
            )

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that are other ones for any other setting."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()[:16]

    def changes(self, other: Arm) -> list[str]:
        """What `other` has otherwise, in words.

        Example:
            >>> arm = Arm(benchmark="b", model="m", revision="1", method="", prompt="", decoding={"beams": 1}, code="1")
            >>> arm.changes(Arm(**{**vars(arm), "method": "vhr", "decoding": {"beams": 5}}))
            ["method '' -> 'vhr'", 'decoding beams 1 -> 5']
        """
        found = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name == "decoding":
                for key in dict.fromkeys([*mine, *theirs]):
                    before, after = (repr(own[key]) if key in own else "unset" for own in (mine, theirs))
                    if before != after:
                        found.append(f"decoding {key} {before} -> {after}")
            elif mine != theirs:
                found.append(f"{field.name} {mine!r} -> {theirs!r}")
        return found


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


def arm_file_name(method: str) -> str:
    """A name for the files of an arm.

    Args:
        method: the text form of its methods; empty for the baseline.

    Example:
        >>> arm_file_name("vhr:alpha=1.5,layers=1,-4:"), arm_file_name("")
        ('vhr-alpha=1.5,layers=1,-4--ede8d2', 'none')
    """
    if not method:
        return "none"
    name = re.sub(r"[^\w.+=,-]", "-", method)
    if re.fullmatch(r"[a-z]\w*", method):
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(method.encode()).hexdigest()[:6]}"


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


class AnswerWriter:
    """Appends answers of one arm and shard to its file, which may be there already.

    Args:
        folder: of the answers; it is made.
        name: of the arm in names of files: letters, digits and `._+=,-`.
        arm: its settings.
        shard: which part of the samples, 0 to `shards` - 1. Sample i belongs to shard i modulo `shards`.
        shards: how many parts there are.

    Attributes:
        done: ids that have an answer, in this shard or another one of the arm.
        repaired: bytes of an unfinished last line that were cut off.

    Raises:
        ValueError: the file has answers to other settings (they are listed), is damaged, is none of ours, or another
            process writes to it.
        OSError: the disk is full or the folder is not writable; what was whole before still is.

    Example:
        >>> arm = Arm(benchmark="b", model="m", revision="1", method="", prompt="", decoding={}, code="1")
        >>> with AnswerWriter(Path("answers"), "baseline", arm) as writer:
        ...     writer.add(StoredAnswer(id="7", text="Yes.", tokens=2, at_limit=False))
        >>> with AnswerWriter(Path("answers"), "baseline", arm) as writer:
        ...     "7" in writer.done
        True
    """

    def __init__(self, folder: Path, name: str, arm: Arm, *, shard: int = 0, shards: int = 1) -> None:
        if not _NAME.fullmatch(name) or _SHARD.fullmatch(f"{name}.jsonl")["shard"]:  # type: ignore[index]
            raise ValueError(f"{name!r} is no name for a file of answers; take letters, digits and ._+=,-")
        if not 0 <= shard < shards:
            raise ValueError(f"there is no shard {shard} of {shards}; count from 0 to {shards - 1}")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / (f"{name}.jsonl" if shards == 1 else f"{name}.{shard}-of-{shards}.jsonl")
        header = _line({"form": FORM, "hash": arm.hash, "settings": asdict(arm)})
        self._file = FileIO(self.path, "a+")
        try:
            _lock(self._file, self.path)
            self._check(header, arm)
            self.repaired = self._repair()
            if not os.fstat(self._file.fileno()).st_size:
                self._write(header)
            self.done = self._finished(folder, name, arm)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, answer: StoredAnswer) -> None:
        """Write one answer; when this returns, it survives the end of the process.

        Raises:
            ValueError: the sample has an answer already, or a number is not finite.
            OSError: the disk is full; the file ends with the answer before.
        """
        if answer.id in self.done:
            raise ValueError(f"{self.path}: sample {answer.id!r} has an answer; skip those in `done`")
        self._write(_line({**asdict(answer), "activity": [dict(one) for one in answer.activity]}))
        self.done.add(answer.id)

    def close(self) -> None:
        """Bring everything to the disk."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _write(self, line: bytes) -> None:
        before = os.fstat(self._file.fileno()).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(before)
            raise

    def _check(self, header: bytes, arm: Arm) -> None:
        """Nothing is changed in a file that is another arm's, or none of ours."""
        with self.path.open("rb") as file:
            first = file.readline()
        if first.endswith(b"\n"):
            _same_settings(arm, _header(self.path, first), self.path)
        elif not header.startswith(first.rstrip(b"\0")):
            raise ValueError(f"{self.path} is no file of answers; take it away or name another folder")

    def _repair(self) -> int:
        """Cut off what stands behind the last end of a line."""
        size = os.fstat(self._file.fileno()).st_size
        whole = size
        while whole:
            start = max(0, whole - (1 << 16))
            self._file.seek(start)
            place = self._file.read(whole - start).rfind(b"\n")
            whole = start + place + 1
            if place >= 0:
                break
        if whole < size:
            self._file.truncate(whole)
        return size - whole

    def _finished(self, folder: Path, name: str, arm: Arm) -> set[str]:
        answers = read_answers(folder, name)
        for path, other in answers.headers:
            _same_settings(arm, other, path)
        return {answer.id for answer in answers}


class Answers:
    """Answers of one arm from the files of its shards, read anew whenever they are iterated over.

    Shards are read in turn, one answer each, so that whole shards give the order of one run. Of several answers to one
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
                self.headers.append((path, _header(path, first)))
        if not self.headers:
            raise ValueError(f"no answers in {', '.join(map(str, files)) or 'no files'}; a run writes them")
        self.arm = self.headers[0][1]
        for path, arm in self.headers[1:]:
            _same_settings(self.arm, arm, path)

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
        match = _SHARD.fullmatch(path.name)
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


def _same_settings(arm: Arm, other: Arm, path: Path) -> None:
    if other.hash != arm.hash:
        raise ValueError(
            f"{path} has answers to other settings: {'; '.join(other.changes(arm))}. Name another folder, or take the "
            "file away"
        )


def _header(path: Path, line: bytes) -> Arm:
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


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _line(content: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # half a letter that no UTF-8 can say
        return (json.dumps(content, allow_nan=False) + "\n").encode()


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _lock(file: FileIO, path: Path) -> None:
    """Let nobody else write, until the file is closed or its process has ended."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"another run writes to {path}; wait for it, or name another folder") from error
    except OSError:
        pass  # a file system without locks
