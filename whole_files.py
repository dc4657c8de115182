"""Write files and folders so that they are complete or absent, whatever interrupts the writing."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

__all__ = ["PARTIAL", "is_partial", "remove_leftovers", "whole_file", "whole_folder", "write_atomically"]

#: Marks the names of unfinished files and folders; the suffix of the file follows.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it is renamed to `path` when the block ends, and removed if it fails.

    An existing file at `path` stays until then. If two processes write the same file, the last one wins.

    Args:
        path: the file; its folder is created.

    Raises:
        OSError: it cannot be written; with errno ENOSPC if the disk or the quota is full, also where HDF5 reports
            that without an errno.

    Example:
        >>> with whole_file(Path("answer.txt")) as partial:
        ...     _ = partial.write_text("42")
        >>> Path("answer.txt").read_text()
        '42'
    """
    with _explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial_name(path, path.suffix)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it is renamed to `path` when the block ends, and removed if it fails.

    An existing folder at `path` stays until then, and is replaced.

    Args:
        path: the folder; its parents are created.

    Raises:
        OSError: it cannot be written; as in `whole_file`.

    Example:
        >>> with whole_folder(Path("model")) as partial:
        ...     _ = (partial / "config.json").write_text("{}")
        >>> [file.name for file in Path("model").iterdir()]
        ['config.json']
    """
    with _explain_full_disk(path):
        partial, before = _partial_name(path), _partial_name(path)
        partial.mkdir(parents=True)
        try:
            yield partial
            if path.exists():
                path.replace(before)
            partial.replace(path)
        finally:
            if before.exists() and not path.exists():
                before.replace(path)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(before, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file completely or not at all.

    Args:
        path: the file; what was there stays until the new content is on disk.
        content: text, written as UTF-8, or bytes.

    Example:
        >>> write_atomically(Path("answer.txt"), "42")
        >>> Path("answer.txt").read_text()
        '42'
    """
    with whole_file(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def is_partial(path: Path) -> bool:
    """Whether a file or folder, or one of its parents, is unfinished.

    Example:
        >>> is_partial(Path(".a.png.0123456789ab.partial.png")), is_partial(Path("a.png"))
        (True, False)
    """
    return any(part.startswith(".") and PARTIAL in part for part in path.parts)


def remove_leftovers(path: Path, older_than_s: float = 600) -> None:
    """Remove what killed processes left of a file or folder.

    Args:
        path: the finished file or folder; `FOLDER / "*"` for all in a folder.
        older_than_s: seconds without a write; anything newer may belong to a process that is still writing.
    """
    name = path.name if path.name == "*" else glob.escape(path.name)
    for left in path.parent.glob(f".{name}.*{PARTIAL}*"):
        with suppress(OSError):
            newest = max(entry.stat().st_mtime for entry in (left, *left.rglob("*")))
            if time.time() - newest <= older_than_s:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _partial_name(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex[:12]}{PARTIAL}{suffix}")


@contextmanager
def _explain_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if _is_full_disk(error):
            raise OSError(errno.ENOSPC, f"no space left to write {path}; free some, or write elsewhere") from error
        raise


def _is_full_disk(error: BaseException) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if not isinstance(error, OSError | RuntimeError):
        return False
    return getattr(error, "errno", None) in full or any(f"errno = {number}," in str(error) for number in full)
