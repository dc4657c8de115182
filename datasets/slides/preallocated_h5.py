"""HDF5 datasets whose space is allocated first, and whose rows are then written straight to the file.

HDF5 cannot recover from a failed write: closing fails, too, and the process may crash when it exits. So all space is
allocated before the first row is written, which fails cleanly on a full disk, and a row is then a plain write at its
offset. Rows may be written in any order at the same cost.
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

__all__ = ["PreallocatedRows", "create_preallocated", "preallocate"]

_BLOCK_ROWS = 8192


def create_preallocated(
    file: h5py.File, name: str, shape: tuple[int, int], dtype: Any, chunk_rows: int
) -> h5py.Dataset:
    """Create a dataset that can shrink and whose space is in the file from the start; its values are undefined."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    rows = max(1, min(shape[0], chunk_rows))
    return file.create_dataset(name, shape, dtype, maxshape=(None, shape[1]), chunks=(rows, shape[1]), dcpl=settings)


def preallocate(path: Path, size: int) -> None:
    """Allocate space on the disk for a file, where the file system can.

    Args:
        path: the file; its content stays.
        size: in bytes.

    Raises:
        OSError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate") or size < 1:
        return
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


class PreallocatedRows:
    """Writes rows of a dataset of `create_preallocated`, in a file that HDF5 has closed.

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
        preallocate(path, path.stat().st_size)
        self._file = path.open("r+b", buffering=0)

    def __enter__(self) -> PreallocatedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, indices: Int[np.ndarray, " n"], values: Float[np.ndarray, "n width"]) -> None:
        """Write rows at their indices, in any order.

        Raises:
            OSError: they cannot be written.
        """
        order = np.argsort(indices)
        indices = indices[order]
        values = np.ascontiguousarray(values[order], self._dtype)
        breaks = np.flatnonzero((np.diff(indices) != 1) | (indices[1:] % self._chunk == 0)) + 1
        for start, stop in itertools.pairwise([0, *breaks.tolist(), len(indices)]):
            if stop > start:
                self._file.seek(self._offset(int(indices[start])))
                rest = memoryview(values[start:stop].data).cast("B")
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]

    def keep(self, kept: Int[np.ndarray, " kept"]) -> None:
        """Move some rows, in ascending order, to the front; no row is overwritten before it is read."""
        for start in range(0, len(kept), _BLOCK_ROWS):
            rows = kept[start : start + _BLOCK_ROWS]
            self.write(np.arange(start, start + len(rows)), self._read(rows))

    def _read(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
        out = np.empty((len(rows), self._width), self._dtype)
        for index, row in enumerate(rows.tolist()):
            self._file.seek(self._offset(row))
            self._file.readinto(memoryview(out[index].data).cast("B"))
        return out

    def _offset(self, row: int) -> int:
        return self._offsets[row // self._chunk] + row % self._chunk * self._width * self._dtype.itemsize
