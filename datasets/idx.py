"""The IDX files of MNIST and its relatives (Fashion-MNIST, KMNIST), raw or gzipped.

Source: LeCun, Cortes and Burges, "The MNIST database", file format: two zero bytes, a byte for the type (8 is
unsigned bytes), a byte for the number of dimensions, each dimension as a big-endian 32-bit integer, the
values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from .labelled_images import LabelledImages

__all__ = ["find_idx_files", "open_idx_folder", "read_idx"]

_UNSIGNED_BYTE = 0x08
_STEMS = {"train": "train", "test": "t10k"}


def read_idx(path: str | Path) -> UInt8[np.ndarray, "..."]:
    """Read an IDX file of unsigned bytes; a raw one is mapped into memory, a gzipped one unpacked.

    Args:
        path: the file; its name ends in `.gz` if it is gzipped.

    Raises:
        ValueError: bad gzip data, another magic number or type, or more or fewer bytes than its header gives.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        ...     read_idx(path).tolist()
        [7, 9]
    """
    path = Path(path)
    gzipped = path.suffix == ".gz"
    try:
        if gzipped:
            data = gzip.decompress(path.read_bytes())
        else:
            with path.open("rb") as file:
                data = file.read(4 + 4 * 255)  # the longest possible header
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); download it again") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError(f"{path} is not an IDX file: it starts with {data[:4].hex(' ') or 'nothing'}, not with 00 00")
    if data[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path} has values of IDX type 0x{data[2]:02x}; only unsigned bytes (0x08) are read")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} ends within its header; download it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    there = len(data) if gzipped else path.stat().st_size
    if there != start + math.prod(shape):
        size = " x ".join(map(str, shape))
        raise ValueError(
            f"{path} is truncated or damaged: its header gives {size} values, so {start + math.prod(shape):,} "
            f"bytes in all, but it has {there:,}; download it again"
        )
    if gzipped:
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    if not math.prod(shape):
        return np.zeros(shape, np.uint8)
    return np.asarray(np.memmap(path, np.uint8, "r", offset=start, shape=shape))


def open_idx_folder(folder: str | Path) -> dict[str, LabelledImages]:
    """Open `train-images-idx3-ubyte[.gz]`, `train-labels-idx1-ubyte[.gz]` and, if there, those of `t10k`.

    Names with a dot (`train-images.idx3-ubyte`) do as well. The classes are the labels that occur in "train".

    Args:
        folder: folder of the files.

    Raises:
        ValueError: a file is missing, damaged, or images and labels do not match.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     head = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1])
        ...     _ = (Path(folder) / "train-images-idx3-ubyte").write_bytes(head + bytes([0, 255]))
        ...     labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 5])
        ...     _ = (Path(folder) / "train-labels-idx1-ubyte").write_bytes(labels)
        ...     found = open_idx_folder(folder)
        >>> found["train"].classes, found["train"].targets
        (['3', '5'], array([0, 1]))
    """
    files = find_idx_files(folder)
    found: dict[str, LabelledImages] = {}
    known = np.zeros(0, np.uint8)
    for split, stem in _STEMS.items():
        images_path, labels_path = files.get(f"{stem}-images"), files.get(f"{stem}-labels")
        if images_path is None and labels_path is None and split == "test":
            continue
        if images_path is None or labels_path is None:
            missing = f"{stem}-images-idx3-ubyte" if images_path is None else f"{stem}-labels-idx1-ubyte"
            raise ValueError(f"{folder} lacks {missing} (or {missing}.gz)")
        images, labels = IdxImages(images_path), read_idx(labels_path)
        if images.values.ndim != 3 and (images.values.ndim != 4 or images.values.shape[-1] not in (1, 3)):
            raise ValueError(f"{images_path} has the shape {images.values.shape}, expected images x height x width")
        if labels.ndim != 1:
            raise ValueError(f"{labels_path} has the shape {labels.shape}, expected one label an image")
        if len(images) != len(labels):
            raise ValueError(f"{images_path} has {len(images):,} images but {labels_path} {len(labels):,} labels")
        if not len(images):
            raise ValueError(f"{images_path} has no images")
        known = np.unique(labels) if split == "train" else known
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise ValueError(f"{labels_path} has the label {unknown[0]}, which the training labels do not have")
        channels: Literal[1, 3] = 3 if images.values.ndim == 4 and images.values.shape[-1] == 3 else 1
        found[split] = LabelledImages(
            images,
            np.searchsorted(known, labels),
            [str(label) for label in known],
            channels=channels,
            origin=str(images_path),
        )
    return found


def find_idx_files(folder: str | Path) -> dict[str, Path]:
    """The IDX files in a folder, by `train-images`, `train-labels` and so on; raw before gzipped."""
    files: dict[str, Path] = {}
    for stem in _STEMS.values():
        for kind, dimensions in (("images", "idx3"), ("labels", "idx1")):
            names = [f"{stem}-{kind}{dot}{dimensions}-ubyte{gz}" for gz in ("", ".gz") for dot in "-."]
            paths = [Path(folder) / name for name in names if (Path(folder) / name).is_file()]
            if paths:
                files[f"{stem}-{kind}"] = paths[0]
    return files


class IdxImages(Sequence[Any]):
    """The images of an IDX file; a worker process reopens the file instead of getting a copy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = read_idx(path)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __reduce__(self) -> tuple[type[IdxImages], tuple[Path]]:
        return type(self), (self.path,)
