"""Locks that are released when their process ends, on every machine that shares the folder."""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["ProcessLock"]

#: What file systems without locks answer.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


class ProcessLock:
    """A lock on a file that one process at a time holds; the system releases it however the process ends.

    On a file system without locks every process gets it. Files that are written whole (see `whole_files`) stay correct
    there; two processes may do the same work.

    Args:
        path: the file that is locked; it is made, and stays.

    Example:
        >>> lock, other = ProcessLock(Path("a.lock")), ProcessLock(Path("a.lock"))
        >>> lock.acquire(), other.acquire()
        (True, False)
        >>> lock.release()
        >>> other.acquire()
        True
        >>> other.release()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, thread_local=False, fallback_to_soft=False)

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock.

        Args:
            wait: until the process that holds it releases it; without, return at once.

        Returns:
            Whether this process holds it now.

        Raises:
            OSError: the file cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=wait)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        self._lock.release(force=True)
