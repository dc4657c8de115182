"""Answers on disk: JSON lines that a run appends to, can be killed over, and goes on with.

One file an arm and shard, `NAME.jsonl` or `NAME.2-of-8.jsonl`. Its first line tells the settings and their hash, each
later one an answer. A line is written at once and whole; what a power cut or a full disk leaves of the last one is cut
off when the file is opened to go on. Answers to other settings never share a file.
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
    """Appends answers of one arm and shard to its file, which may be there already.

    Args:
        folder: of the answers; it is made.
        name: of the arm in names of files: letters, digits and `._+=,-`.
        arm: its settings.
        shard: which part of the samples, 0 to `shards` - 1. Which samples are in it is for the caller to say.
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
        if not _NAME.fullmatch(name) or SHARD.fullmatch(f"{name}.jsonl")["shard"]:  # type: ignore[index]
            raise ValueError(f"{name!r} is no name for a file of answers; take letters, digits and ._+=,-")
        if not 0 <= shard < shards:
            raise ValueError(f"there is no shard {shard} of {shards}; count from 0 to {shards - 1}")
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
        """Nothing is changed in a file that is another arm's, or none of ours."""
        with self.path.open("rb") as file:
            first = file.readline()
        if first.endswith(b"\n"):
            same_settings(arm, read_header(self.path, first), self.path)
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
            same_settings(arm, other, path)
        return {answer.id for answer in answers}


def _line(content: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # half a letter that no UTF-8 can say
        return (json.dumps(content, allow_nan=False) + "\n").encode()
