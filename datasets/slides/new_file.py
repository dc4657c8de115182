"""A file that is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["new_file"]


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A place beside `path` to write to; what is written there takes its name when all went well.

    Two that write the same file at once do not meet: the last to finish stays. Whatever goes wrong, the place is
    cleaned and what was at `path` before remains.

    Args:
        path: the file; its folder is made.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_file(f"{folder}/deep/notes.txt") as place:
        ...         _ = place.write_text("whole")
        ...     Path(f"{folder}/deep/notes.txt").read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short and plain, so that a name of the greatest length has room, and ending as the file does.
    place = path.with_name(f".{uuid.uuid4().hex[:12]}.partial{path.suffix}")
    try:
        yield place
        with place.open("rb") as file:
            os.fsync(file.fileno())
        place.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)
        if _disk_is_full(error):
            raise OSError(
                errno.ENOSPC, f"no room to write {path}; free some, or choose another --out (nothing of it was kept)"
            ) from error
        raise


def _disk_is_full(error: BaseException) -> bool:
    """Also as HDF5 tells it, which has no number for it."""
    if not isinstance(error, (OSError, RuntimeError)):
        return False
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    number = getattr(error, "errno", None)
    return number in full or any(f"errno = {one}," in str(error) for one in full)
