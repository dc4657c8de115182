"""Write PNG files a few rows at a time, without holding the whole image in memory.

Source: W3C, Portable Network Graphics (Third Edition), 2025: chunks (5.3), filters (9.2), iCCP (11.3.2.3) and
eXIf (11.3.4.5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["write_png"]

#: Colour type by the number of channels: grey, grey and alpha, RGB, RGBA.
_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}

#: The filter that subtracts the row above; on enlarged images it compresses as well as any.
_UP = 2

#: Bytes of compressed data in a chunk.
_CHUNK = 2**20


def write_png(
    path: Path,
    size: tuple[int, int],
    strips: Iterable[np.ndarray],
    *,
    profile: bytes | None = None,
    exif: bytes | None = None,
    software: str = "regard",
    level: int = 4,
) -> None:
    """Write an image from strips, from top to bottom.

    Args:
        path: the file.
        size: width and height in pixels.
        strips: (rows, width, channels) of 8 or 16 bits; 1 to 4 channels: grey, grey and alpha, RGB, RGBA; their rows
            add up to the height.
        profile: ICC profile.
        exif: EXIF data, with or without its prefix.
        software: name of the program in the metadata, in Latin-1.
        level: compression level, 0-9.

    Raises:
        ValueError: the strips differ in type, or do not have the size of the image.

    Example:
        >>> from PIL import Image
        >>> write_png(Path("example.png"), (3, 4), (np.full((2, 3, 3), 9, np.uint8) for _ in range(2)))
        >>> Image.open("example.png").getpixel((2, 3))
        (9, 9, 9)
    """
    width, height = size
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        lines = 0
        kind: tuple[np.dtype, int] | None = None
        packer = zlib.compressobj(level)
        above = np.zeros(0, np.uint8)
        waiting: list[bytes] = []
        for strip in strips:
            if kind is None:
                kind = strip.dtype, strip.shape[2]
                for name, data in _head(width, height, *kind, profile, exif, software):
                    _write(file, name, data)
                above = np.zeros(width * kind[1] * kind[0].itemsize, np.uint8)
            if (strip.dtype, strip.shape[2]) != kind or strip.shape[1] != width:
                raise ValueError(f"a strip of {strip.shape} {strip.dtype} does not fit an image {width} wide of {kind}")
            lines += len(strip)
            for rows in np.array_split(strip, -(-len(strip) // 64)):
                raw = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">")).view(np.uint8).reshape(len(rows), -1)
                coded = np.empty((len(raw), raw.shape[1] + 1), np.uint8)
                coded[:, 0] = _UP
                np.subtract(raw[1:], raw[:-1], out=coded[1:, 1:])
                np.subtract(raw[0], above, out=coded[0, 1:])
                above = raw[-1].copy()
                waiting.append(packer.compress(coded.data))
                if sum(map(len, waiting)) >= _CHUNK:
                    _write(file, b"IDAT", b"".join(waiting))
                    waiting = []
        if lines != height:
            raise ValueError(f"the strips have {lines} rows, the image {height}")
        _write(file, b"IDAT", b"".join([*waiting, packer.flush()]))
        _write(file, b"IEND", b"")


def _head(
    width: int,
    height: int,
    dtype: np.dtype,
    channels: int,
    profile: bytes | None,
    exif: bytes | None,
    software: str,
) -> Iterator[tuple[bytes, bytes]]:
    """Chunks before the pixels."""
    yield b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, _TYPES[channels], 0, 0, 0)
    if profile:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)
    if exif:
        yield b"eXIf", exif.removeprefix(b"Exif\0\0")
    yield b"tEXt", b"Software\0" + software.encode("latin-1", "replace")


def _write(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
