"""Writing answer files: JSON lines that a run appends to and that survive its interruption.

There is one file per arm and shard, `NAME.jsonl` or `NAME.2-of-8.jsonl`. The first line has the settings and their
hash, every later line an answer. A line is written at once; an incomplete last line, such as after a power cut, is
removed when the file is opened again. Answers with other settings never share a file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from ...file_lock import ProcessLock
from .answer_files import FORM, SHARD, StoredAnswer, read_answers, read_header, same_settings
from .arm_settings import Arm

__all__ = ["AnswerWriter"]

_NAME = re.compile(r"\w[\w.+=,-]*")


class AnswerWriter:
    """Appends answers of one arm and shard to its file, which may exist.

    Args:
        folder: of the answers; it is created.
        name: of the arm in file names: letters, digits and `._+=,-`.
        arm: its settings.
        shard: index of the shard, 0 to `shards` - 1; the caller decides which samples are in it.
        shards: number of shards.

    Attributes:
        done: ids that have an answer, in this shard or another one of the arm.
        repaired: bytes of an incomplete last line that were removed.

    Raises:
        ValueError: the file has answers with other settings (they are listed), is damaged, is not an answer file, or
            another process writes to it.
        OSError: the disk is full or the folder is not writable; complete lines are kept.

    Example:
        >>> arm = Arm(benchmark="b", model="m", revision="1", intervention="", prompt="", decoding={}, code="1")
        >>> with AnswerWriter(Path("answers"), "baseline", arm) as writer:
        ...     writer.add(StoredAnswer(id="7", text="Yes.", tokens=2, at_limit=False))
        >>> with AnswerWriter(Path("answers"), "baseline", arm) as writer:
        ...     "7" in writer.done
        True
    """

    def __init__(self, folder: Path, name: str, arm: Arm, *, shard: int = 0, shards: int = 1) -> None:
        if not _NAME.fullmatch(name) or SHARD.fullmatch(f"{name}.jsonl")["shard"]:  # type: ignore[index]
            raise ValueError(f"{name!r} is not a valid name of an answer file; use letters, digits and ._+=,-")
        if not 0 <= shard < shards:
            raise ValueError(f"there is no shard {shard} of {shards}; shards are 0 to {shards - 1}")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / (f"{name}.jsonl" if shards == 1 else f"{name}.{shard}-of-{shards}.jsonl")
        header = _line({"form": FORM, "hash": arm.hash, "settings": asdict(arm)})
        self._lock = ProcessLock(self.path.with_name(f".{self.path.name}.lock"))
        if not self._lock.acquire():
            raise ValueError(f"another run writes to {self.path}; wait for it, or give another folder")
        self._file = FileIO(self.path, "a+")
        try:
            self._check(header, arm)
            self.repaired = self._repair()
            if not os.fstat(self._file.fileno()).st_size:
                self._write(header)
            self.done = self._finished(folder, name, arm)
        except BaseException:
            self._file.close()
            self._lock.release()
            raise

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, answer: StoredAnswer) -> None:
        """Write one answer; once this returns, it survives the end of the process.

        Raises:
            ValueError: the sample has an answer already, or a number is not finite.
            OSError: the disk is full; the file ends with the previous answer.
        """
        if answer.id in self.done:
            raise ValueError(f"{self.path}: sample {answer.id!r} already has an answer; skip ids in `done`")
        self._write(_line({**asdict(answer), "activity": [dict(one) for one in answer.activity]}))
        self.done.add(answer.id)

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
            self._lock.release()

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
        """Refuse a file of another arm or kind before it is changed."""
        with self.path.open("rb") as file:
            first = file.readline()
        if first.endswith(b"\n"):
            same_settings(arm, read_header(self.path, first), self.path)
        elif not header.startswith(first.rstrip(b"\0")):
            raise ValueError(f"{self.path} is not an answer file; remove it, or choose another folder")

    def _repair(self) -> int:
        """Remove whatever follows the last line break."""
        size = os.fstat(self._file.fileno()).st_size
        end = size
        while end:
            start = max(0, end - (1 << 16))
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            end = start + found + 1
            if found >= 0:
                break
        if end < size:
            self._file.truncate(end)
        return size - end

    def _finished(self, folder: Path, name: str, arm: Arm) -> set[str]:
        answers = read_answers(folder, name)
        for path, other in answers.headers:
            same_settings(arm, other, path)
        return {answer.id for answer in answers}


def _line(content: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot encode
        return (json.dumps(content, allow_nan=False) + "\n").encode()
