"""Rows of an HDF5 dataset, written past HDF5 to where it keeps them.

HDF5 cannot go on after a failed write: closing fails, too, and the process may crash as it ends. So all room is taken
before the first row comes, which fails cleanly, and a row then is a plain write to its place. Rows in any order cost
no more than rows in order.
"""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int

__all__ = ["ReservedRows", "create_reserved", "reserve"]

_BLOCK_ROWS = 8192


def create_reserved(file: h5py.File, name: str, shape: tuple[int, int], dtype: Any, chunk_rows: int) -> h5py.Dataset:
    """A dataset that can shrink and has its room in the file from the start; its values are undefined."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    rows = max(1, min(shape[0], chunk_rows))
    return file.create_dataset(name, shape, dtype, maxshape=(None, shape[1]), chunks=(rows, shape[1]), dcpl=settings)


def reserve(path: Path, size: int) -> None:
    """Take room on the disk for a file, as far as the file system can.

    Args:
        path: the file; it keeps what it has.
        size: in bytes.

    Raises:
        OSError: there is no such room.
    """
    if not hasattr(os, "posix_fallocate") or size < 1:
        return
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


class ReservedRows:
    """The rows of a dataset of `create_reserved`, in a file that HDF5 has closed.

    Args:
        path: the file.
        name: of the dataset.
    """

    def __init__(self, path: Path, name: str) -> None:
        found: list[tuple[int, int]] = []
        with h5py.File(path, "r") as file:
            dataset = file[name]
            self._count, self._width = dataset.shape
            self._dtype, self._chunk = dataset.dtype, dataset.chunks[0]
            if self._count:
                dataset.id.chunk_iter(lambda chunk: found.append((chunk.chunk_offset[0], chunk.byte_offset)))
        self._offsets = [offset for _, offset in sorted(found)]
        assert len(self._offsets) == -(-self._count // self._chunk)
        reserve(path, path.stat().st_size)
        self._file = path.open("r+b", buffering=0)

    def __enter__(self) -> ReservedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, places: Int[np.ndarray, " n"], values: Float[np.ndarray, "n width"]) -> None:
        """Put rows into their places, in any order.

        Raises:
            OSError: the disk does not take them.
        """
        order = np.argsort(places)
        places = places[order]
        values = np.ascontiguousarray(values[order], self._dtype)
        apart = np.flatnonzero((np.diff(places) != 1) | (places[1:] % self._chunk == 0)) + 1
        for start, stop in itertools.pairwise([0, *apart.tolist(), len(places)]):
            if stop > start:
                self._file.seek(self._offset(int(places[start])))
                rest = memoryview(values[start:stop].data).cast("B")
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]

    def keep(self, kept: Int[np.ndarray, " kept"]) -> None:
        """Move some rows, which ascend, to the front. No row moves back, so none is lost."""
        for start in range(0, len(kept), _BLOCK_ROWS):
            rows = kept[start : start + _BLOCK_ROWS]
            self.write(np.arange(start, start + len(rows)), self._read(rows))

    def _read(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
        out = np.empty((len(rows), self._width), self._dtype)
        for place, row in enumerate(rows.tolist()):
            self._file.seek(self._offset(row))
            self._file.readinto(memoryview(out[place].data).cast("B"))
        return out

    def _offset(self, row: int) -> int:
        return self._offsets[row // self._chunk] + row % self._chunk * self._width * self._dtype.itemsize
