"""Features of slides in HDF5 files, as CLAM, TRIDENT and ACMIL write them.

- CLAM and TRIDENT: a file for each slide, with `features` (instances, width) and `coords` (instances, 2).
- ACMIL: one file for all slides, a group for each with `feat`, `coords` and the attribute `label`.

Uncompressed values are read directly from their position in the file: memory-mapped if they are contiguous, otherwise
copied piece by piece. HDF5 itself reads chunks of one row, which TRIDENT writes, several times slower.

Source: layouts of mahmoodlab/CLAM@53e2409, mahmoodlab/TRIDENT@a91fa84 and dazhangyu123/ACMIL@e53d19c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["H5Features", "find_groups", "open_h5"]

_FEATURES = ("features", "feat", "feats")
_COORDINATES = ("coords", "coordinates")
_BFLOAT16 = (15, 7, 8, 0, 7)  # positions and lengths of sign, exponent and mantissa in HDF5
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class H5Features:
    """The instances of a bag in an HDF5 file.

    Args:
        path: the file.
        group: in which the bag is; the whole file if it holds just one.

    Raises:
        ValueError: from every method, if the file is missing, locked, damaged, or holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/slide.h5", "w") as file:
        ...         file["features"] = np.ones((5, 8), np.float16)
        ...     H5Features(f"{folder}/slide.h5").read().dtype
        torch.float16
    """

    path: str
    group: str = "/"

    def shape(self) -> tuple[int, int]:
        """Return number of instances and feature width."""
        with open_h5(self.path) as file:
            return self._features(file).shape

    def read(self, rows: Int[np.ndarray, " rows"] | None = None) -> Float[Tensor, "instances width"]:
        """Read the features, or some rows in ascending order."""
        with open_h5(self.path) as file:
            features = self._features(file)
            brain_float = _is_bfloat16(features)
            values = _read(features, np.dtype(np.int16) if brain_float else features.dtype, rows)
        tensor = torch.from_numpy(values)
        return tensor.view(torch.bfloat16) if brain_float else tensor

    def coordinates(self) -> Int[Tensor, "instances 2"] | None:
        """Read top left corners, if the file has them."""
        with open_h5(self.path) as file:
            name = next((name for name in _COORDINATES if name in file[self.group]), None)
            if name is None:
                return None
            coordinates = file[self.group][name]
            if not isinstance(coordinates, h5py.Dataset) or coordinates.ndim != 2 or coordinates.dtype.kind not in "iu":
                raise ValueError(f"{name!r} in {self.path} are not integers of shape (instances, 2)")
            return torch.from_numpy(_read(coordinates, coordinates.dtype, None).astype(np.int64))

    def _features(self, file: h5py.File) -> Any:
        group = file[self.group]
        name = next((name for name in _FEATURES if name in group), None)
        if name is None:
            what = ", ".join(sorted(group)[:8]) or "nothing"
            raise ValueError(f"{self.path} has no dataset 'features', it has {what}; give the folder of features")
        features = group[name]
        if not isinstance(features, h5py.Dataset) or features.dtype.kind != "f":
            raise ValueError(f"{name!r} in {self.path} are not floating point numbers")
        if features.ndim != 2:
            one = "; this is one vector for the whole slide, not a bag" if features.ndim == 1 else ""
            raise ValueError(f"{name!r} in {self.path} have shape {features.shape}, not (instances, width){one}")
        return features


def find_groups(path: str) -> dict[str, str | None]:
    """List the slides of a file with one group for each, with their attribute `label` as text.

    Raises:
        ValueError: the file cannot be read.

    Returns:
        Empty if the file holds one slide only.
    """
    with open_h5(path) as file:
        found = {}
        for name, group in file.items():
            if isinstance(group, h5py.Group) and any(key in group for key in _FEATURES):
                label = group.attrs.get("label")
                found[name] = None if label is None else _text(label)
        return found


@contextmanager
def open_h5(path: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, and explain errors.

    Raises:
        ValueError: there is no such file, it is open for writing elsewhere, or it is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip("'\"")
        if not os.path.exists(path):  # noqa: PTH110
            raise ValueError(f"there is no file {path}") from error
        number = getattr(error, "errno", None)
        if (
            number in (errno.EAGAIN, errno.EACCES, errno.ENOLCK)
            or "to lock file" in reason
            or "open for write" in reason
        ):
            raise ValueError(
                f"{path} cannot be opened ({reason}); if it is still being written, wait for that; on a network disk "
                "without locks set HDF5_USE_FILE_LOCKING=FALSE"
            ) from error
        raise ValueError(
            f"{path} is truncated, damaged or not an HDF5 file ({reason}); extract the features of this slide again"
        ) from error


def _text(label: Any) -> str:
    value = np.asarray(label).reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_bfloat16(dataset: Any) -> bool:
    kind = dataset.id.get_type()
    return kind.get_size() == 2 and tuple(kind.get_fields()) == _BFLOAT16


def _read(dataset: Any, dtype: np.dtype[Any], rows: np.ndarray | None) -> np.ndarray:
    """Read all values, or some rows, as an array that may be memory-mapped."""
    pieces = _pieces(dataset, dtype)
    if pieces is None:
        values = _read_by_hdf5(dataset, dtype, rows)
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    count, width = dataset.shape
    file = np.memmap(dataset.file.filename, np.uint8, "c")  # copy on write
    starts, offsets, lengths = pieces
    if len(starts) == 1:
        mapped = file[offsets[0] : offsets[0] + count * width * dtype.itemsize].view(dtype).reshape(count, width)
        return np.asarray(mapped) if rows is None else np.asarray(mapped[rows])
    out = np.empty((count if rows is None else len(rows), width), dtype)
    ends = np.arange(0) if rows is None else np.searchsorted(rows, np.append(starts, count))
    for piece, (start, offset, length) in enumerate(zip(starts, offsets, lengths, strict=True)):
        there = file[offset : offset + length * width * dtype.itemsize].view(dtype).reshape(length, width)
        if rows is None:
            out[start : start + length] = there
        else:
            first, last = ends[piece], ends[piece + 1]
            out[first:last] = there[rows[first:last] - start]
    return out


def _pieces(dataset: Any, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """List contiguous runs of rows: first row, first byte and number of rows of each; None if unknown."""
    settings = dataset.id.get_create_plist()
    plain = dtype.isnative and not settings.get_nfilters() and not settings.get_external_count()
    if not plain or dataset.is_virtual or dataset.file.userblock_size or not dataset.size:
        return None
    count, width = dataset.shape
    row_bytes = width * dtype.itemsize
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        found = [] if offset is None else [(0, offset)]
        each = count
    else:
        each = dataset.chunks[0]
        if dataset.chunks[1] != width or not hasattr(dataset.id, "chunk_iter"):
            return None
        found = []
        dataset.id.chunk_iter(lambda chunk: found.append((chunk.chunk_offset[0], chunk.byte_offset)))
        found.sort()
    if len(found) != -(-count // each):  # some were never written
        return None
    starts, offsets = np.array(found, np.int64).T
    lengths = np.minimum(starts + each, count) - starts
    inside = int((offsets + lengths * row_bytes).max()) <= os.path.getsize(dataset.file.filename)  # noqa: PTH202
    if not inside or (offsets % dtype.itemsize).any():
        return None
    first = np.append(0, np.flatnonzero(np.diff(offsets) != lengths[:-1] * row_bytes) + 1)
    return starts[first], offsets[first], np.add.reduceat(lengths, first)


def _read_by_hdf5(dataset: Any, dtype: np.dtype[Any], rows: np.ndarray | None) -> np.ndarray:
    """Read in big slices; of some rows only these are kept."""
    count, width = dataset.shape
    each = max(1, _BLOCK_BYTES // max(1, width * dtype.itemsize))
    if dataset.chunks:
        each = -(-each // dataset.chunks[0]) * dataset.chunks[0]
    out = np.empty((count if rows is None else len(rows), width), dtype)
    filled = 0
    for start in range(0, count, each):
        stop = min(start + each, count)
        if rows is None:
            _read_slice(dataset, start, out[start:stop])
            continue
        wanted = rows[(rows >= start) & (rows < stop)]
        if len(wanted):
            low, high = int(wanted[0]), int(wanted[-1]) + 1
            block = np.empty((high - low, width), dtype)
            _read_slice(dataset, low, block)
            out[filled : filled + len(wanted)] = block[wanted - low]
            filled += len(wanted)
    return out


def _read_slice(dataset: Any, start: int, out: np.ndarray) -> None:
    if not out.size:
        return
    where = dataset.id.get_space()
    where.select_hyperslab((start, 0), out.shape)
    # The file's own type: no conversion, which bfloat16 would not survive.
    dataset.id.read(h5py.h5s.create_simple(out.shape), where, out, mtype=dataset.id.get_type())
