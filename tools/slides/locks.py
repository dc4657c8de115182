"""One process at a time on one slide, on every machine that shares the folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["SlideLock"]


class SlideLock:
    """A lock that the system takes back when its process ends, however it ends.

    Where the file system or the system has no locks, two processes may do the same work; as every file is written
    whole, the results are right all the same.

    Args:
        file: that is locked; it stays.

    Example:
        >>> lock, other = SlideLock(Path("a.lock")), SlideLock(Path("a.lock"))
        >>> lock.take(), other.take()
        (True, False)
        >>> lock.release()
        >>> other.take()
        True
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._held: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Whether the lock is ours now.

        Args:
            wait: for the process that has it.
        """
        if fcntl is None:
            return True
        self.file.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(held)
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # else there are no locks here
        self._held = held
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
