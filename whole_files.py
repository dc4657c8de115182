"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

__all__ = ["PARTIAL", "remove_partials", "whole_file", "whole_folder", "write_atomically"]

#: What the names of unfinished files end with, before the suffix.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file to, which takes the name `path` when the block ends, and is removed when it fails.

    What was at `path` stays until then. Two processes may write one file at once: the last one wins, whole.

    Args:
        path: the file; its folder is made.

    Raises:
        OSError: it cannot be written; with the number ENOSPC where the disk or the quota is full, also where HDF5
            says so, which gives no number.

    Example:
        >>> with whole_file(Path("answer.txt")) as partial:
        ...     _ = partial.write_text("42")
        >>> Path("answer.txt").read_text()
        '42'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}{PARTIAL}{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if _tells_of_a_full_disk(error):
            raise OSError(
                errno.ENOSPC, f"no room to write {path}; free some and start again, or write elsewhere"
            ) from error
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: file to write; what was there stays until the new content is on disk.
        content: text, or bytes.

    Example:
        >>> write_atomically(Path("answer.txt"), "42")
        >>> Path("answer.txt").read_text()
        '42'
    """
    with whole_file(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder to fill, which takes the name `path` when the block ends and is removed when it fails.

    What was at `path` stays until then.

    Args:
        path: the folder; the folder around it is made.

    Raises:
        OSError: it cannot be written; with the number ENOSPC where the disk or the quota is full.

    Example:
        >>> with whole_folder(Path("model")) as partial:
        ...     _ = (partial / "config.json").write_text("{}")
        >>> [file.name for file in Path("model").iterdir()]
        ['config.json']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{path.name}.{uuid4().hex[:12]}{PARTIAL}") for _ in range(2))
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except BaseException as error:
        if old.exists() and not path.exists():
            old.rename(path)
        if _tells_of_a_full_disk(error):
            raise OSError(
                errno.ENOSPC, f"no room to write {path}; free some and start again, or write elsewhere"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_partials(folder: Path) -> None:
    """Remove what `whole_file` and `whole_folder` left unfinished anywhere in a folder when their process was killed.

    Args:
        folder: one that no other process writes to now.

    Example:
        >>> Path(".a.txt.0123456789ab.partial.txt").touch()
        >>> remove_partials(Path("."))
        >>> list(Path(".").glob(".a.txt*"))
        []
    """
    for left in list(folder.rglob(f".*{PARTIAL}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _tells_of_a_full_disk(error: BaseException) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if not isinstance(error, OSError | RuntimeError):
        return False
    return getattr(error, "errno", None) in full or any(f"errno = {number}," in str(error) for number in full)
