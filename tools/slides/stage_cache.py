"""Which stages of a slide are done, and from what: a stage whose inputs or files have changed is run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...whole_files import write_atomically

__all__ = ["StageCache", "cache_key", "file_digest", "slide_fingerprint"]

_CHUNK = 1 << 20


def cache_key(**parts: Any) -> str:
    """A short hash of all arguments.

    Example:
        >>> cache_key(patch=256) == cache_key(patch=256), cache_key(patch=256) == cache_key(patch=224)
        (True, False)
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def slide_fingerprint(path: Path) -> str:
    """A hash of a slide: names, sizes, and the beginning, middle and end of its files.

    Raises:
        OSError: the file cannot be read.
    """
    parts = hashlib.sha256()
    folder = path if path.is_dir() else path.with_suffix("")
    others = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    for file in others:
        parts.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    for file in others[:1] if path.is_dir() else [path]:
        size = file.stat().st_size
        parts.update(f"{size}\n".encode())
        with file.open("rb") as content:
            for start in sorted({0, max(0, size // 2 - _CHUNK // 2), max(0, size - _CHUNK)}):
                content.seek(start)
                parts.update(content.read(_CHUNK))
    return parts.hexdigest()[:32]


class StageCache:
    """Key and files of every finished stage of a slide, on disk.

    Args:
        file: where it is kept; one that is missing or damaged counts as empty.
        out: folder that the files are in.
    """

    def __init__(self, file: Path, out: Path) -> None:
        self.file, self.out = file, out
        self._stages: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            read = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(read, dict):
                self._stages = {name: entry for name, entry in read.items() if isinstance(entry, dict)}

    def done(self, stage: str, key: str) -> bool:
        """Whether the stage was done with this key, and its files are as they were written."""
        return self.key(stage) == key and not self.changed(stage)

    def key(self, stage: str) -> str | None:
        """Key of the last time the stage was done, if it was."""
        return self._stages.get(stage, {}).get("key")

    def changed(self, stage: str) -> list[str]:
        """Files of a stage that are missing or have other contents by now."""
        files = self._stages.get(stage, {}).get("files", {})
        return [name for name, written in files.items() if self._state(self.out / name, written) != written]

    def value(self, stage: str) -> Any:
        """What was stored with the stage."""
        return self._stages[stage]["value"]

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds it took."""
        return {name: float(entry.get("seconds", 0)) for name, entry in self._stages.items()}

    def store(
        self,
        stage: str,
        key: str,
        files: Iterable[Path] = (),
        *,
        unhashed: Iterable[Path] = (),
        seconds: float,
        value: Any = None,
    ) -> None:
        """Record that a stage is done.

        Args:
            stage: its name.
            key: what it was made from.
            files: that it wrote.
            unhashed: files with a check of their own, of which only the size is kept.
            seconds: it took.
            value: what later runs need of it, of JSON's types.
        """
        hashed = {self._name(file): self._state(file, "sha256") for file in files}
        sized = {self._name(file): self._state(file, "bytes") for file in unhashed}
        entry = {"key": key, "files": hashed | sized, "seconds": round(seconds, 3), "value": value}
        self._stages = {**self._stages, stage: entry}
        write_atomically(self.file, json.dumps(self._stages, indent=1))

    def _name(self, file: Path) -> str:
        return file.relative_to(self.out).as_posix()

    @staticmethod
    def _state(file: Path, kind: str) -> str | None:
        """Contents or size of a file, whichever `kind` begins with; None if it cannot be read."""
        try:
            return f"sha256 {file_digest(file)}" if kind.startswith("sha256") else f"bytes {file.stat().st_size}"
        except OSError:
            return None
