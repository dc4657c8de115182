"""Reads tiled TIFF without OpenSlide: Aperio, generic pyramids, and OME-TIFF with its SubIFDs.

Tiles are decoded directly from the file, several times faster than through OpenSlide and with the same pixels, and the
pyramid of OME-TIFF is used, which OpenSlide ignores. The images of a file that are levels are those of OpenSlide's
readers of Aperio and generic tiled TIFF (openslide.org/formats), and of the OME-TIFF specification 6.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image

from .resolution import aperio_values, downsample, from_resolution, ome_values
from .slide import Level, UnreadableSlideError, UnreadableTileError
from .tiff_tiles import TiffTiles, read_tiles
from .tile_cache import TileCache

__all__ = ["TRUNCATED", "TiffSlide"]

#: Beginning of the reason for a truncated file.
TRUNCATED = "it is truncated"

#: Largest associated image that is read, in pixels.
_MAX_ASSOCIATED = 64_000_000

#: Held while a slide's file is opened; a lock of the slide's own could not be pickled.
_OPENING = threading.Lock()


class TiffSlide:
    """A slide in a tiled TIFF; see `Slide` for the attributes.

    Args:
        path: the file.
        mpp: microns per pixel at full resolution; by default from the file.
        cache_bytes: size of the cache of decoded tiles that `read` uses.

    Raises:
        UnreadableSlideError: not a tiled TIFF, or of a kind that this reader does not support.
    """

    reader = "tiff"

    def __init__(self, path: str | Path, *, mpp: float | None = None, cache_bytes: int = 1 << 26) -> None:
        self.path = str(path)
        self._file: Any = None
        self.vendor, self._tiles = "generic-tiff", list[TiffTiles]()
        found: tuple[float | None, float | None] = (None, None)
        try:
            with tifffile.TiffFile(self.path) as tiff:
                self.vendor, pages = _pyramid(tiff)
                self._tiles = [read_tiles(page) for page in pages]
                _refuse_truncated(tiff, self._tiles)
                found = _resolution(self.vendor, pages[0])
        except OSError as error:
            raise UnreadableSlideError(self.path, error.strerror or str(error)) from error
        except Exception as error:  # a damaged directory makes tifffile raise errors of any kind
            reason = str(error) if isinstance(error, ValueError) else f"its directory is damaged ({error})"
            raise UnreadableSlideError(self.path, reason) from error
        self.mpp, self.objective = mpp if mpp is not None else found[0], found[1]
        sizes = [(each.width, each.height) for each in self._tiles]
        self.levels: Sequence[Level] = [
            Level(*size, downsample(sizes[0], size), each.tile) for size, each in zip(sizes, self._tiles, strict=True)
        ]
        self.bounds = (0, 0, *sizes[0])
        self._cache = TileCache(cache_bytes)
        self._refuse_omitted_tiles()

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> UInt8[np.ndarray, "height width 3"]:
        """Read a rectangle in RGB; the corner is rounded to whole pixels of the level. See `Slide.read`."""
        tiles, scale = self._tiles[level], self.levels[level].downsample
        left, top = int(np.floor(x / scale + 0.5)), int(np.floor(y / scale + 0.5))
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        right, bottom = min(left + width, tiles.width), min(top + height, tiles.height)
        if right <= max(left, 0) or bottom <= max(top, 0):
            return pixels
        for row in range(max(top, 0) // tiles.tile[1], -(-bottom // tiles.tile[1])):
            for column in range(max(left, 0) // tiles.tile[0], -(-right // tiles.tile[0])):
                tile = self._cache.get((level, column, row))
                if tile is None:
                    tile = self.decode(column, row, level)
                    if tile is None:
                        continue
                    self._cache.keep((level, column, row), tile)
                x0, y0 = column * tiles.tile[0], row * tiles.tile[1]
                across = slice(max(left, x0, 0), min(right, x0 + tiles.tile[0]))
                down = slice(max(top, y0, 0), min(bottom, y0 + tiles.tile[1]))
                pixels[down.start - top : down.stop - top, across.start - left : across.stop - left] = tile[
                    down.start - y0 : down.stop - y0, across.start - x0 : across.stop - x0
                ]
        return pixels

    def decode(
        self, column: int, row: int, level: int = 0, out: UInt8[np.ndarray, "height width 3"] | None = None
    ) -> UInt8[np.ndarray, "height width 3"] | None:
        """Decode a whole tile of the file, including what lies beyond the edge of the slide; thread-safe.

        Args:
            column: of the tile.
            row: of the tile.
            level: of the pyramid.
            out: contiguous array of a tile's shape that is filled and returned; by default a new one.

        Returns:
            The pixels; None for a tile that the file omits, which is white.

        Raises:
            UnreadableTileError: its data are damaged.
        """
        tiles = self._tiles[level]
        index = row * tiles.columns + column
        count, offset = int(tiles.counts[index]), int(tiles.offsets[index])
        if count == 0:
            return None
        where = f"tile {column}, {row} of level {level}"
        if not 0 < count <= tiles.max_count:
            raise UnreadableTileError(self.path, f"{where} has an implausible size of {count} bytes")
        data = self._bytes(offset, count)
        if len(data) < count:
            raise UnreadableTileError(self.path, f"{where} lies beyond the end of the file, which is truncated")
        try:
            return tiles.decode(data, out)
        except ValueError as error:
            raise UnreadableTileError(self.path, f"{where}: {error}") from error

    def corner_of_a_tile(self) -> tuple[int, int]:
        """Corner of a tile that the file does not omit: x and y in pixels of full resolution."""
        tiles = self._tiles[0]
        there = np.flatnonzero(tiles.counts)
        row, column = divmod(int(there[len(there) // 2]) if len(there) else 0, tiles.columns)
        return column * tiles.tile[0], row * tiles.tile[1]

    def associated(self) -> dict[str, Image.Image]:
        """Thumbnail, label and macro of an Aperio file; empty for other files. See `Slide.associated`."""
        images: dict[str, Image.Image] = {}
        if self.vendor != "aperio":
            return images
        with tifffile.TiffFile(self.path) as tiff:
            pages: list[Any] = list(tiff.pages)
            for index, page in enumerate(pages):
                name = "thumbnail" if index == 1 else {1: "label", 9: "macro"}.get(page.subfiletype)
                if page.is_tiled or name is None or page.imagewidth * page.imagelength > _MAX_ASSOCIATED:
                    continue
                with suppress(Exception):  # these images are optional
                    images[name] = Image.fromarray(page.asarray()).convert("RGB")
        return images

    def close(self) -> None:
        """Close the file and drop the cache; the next read opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._cache.clear()

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_cache": TileCache(self._cache.limit)}

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            if not hasattr(os, "pread"):  # Windows; threads cannot share a file position
                with Path(self.path).open("rb") as file:
                    file.seek(offset)
                    return file.read(count)
            if self._file is None:
                with _OPENING:  # of threads that come at once, the first opens
                    if self._file is None:
                        self._file = Path(self.path).open("rb")  # noqa: SIM115, `close` closes it
            return os.pread(self._file.fileno(), count, offset)
        except OSError as error:
            raise UnreadableTileError(self.path, error.strerror or str(error)) from error

    def _refuse_omitted_tiles(self) -> None:
        """Refuse Aperio files that omit tiles of a lower level, which OpenSlide fills from the level above."""
        for upper, lower in zip(self._tiles, self._tiles[1:], strict=False):
            empty = np.flatnonzero(lower.counts == 0)
            if self.vendor != "aperio" or len(empty) == 0:
                continue
            there = (upper.counts > 0).reshape(upper.rows, upper.columns)
            total = np.pad(there.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
            rows, columns = empty // lower.columns, empty % lower.columns
            scale = upper.width / lower.width
            spans = []
            for number, side, upper_side, most in (
                (rows, lower.tile[1], upper.tile[1], upper.rows),
                (columns, lower.tile[0], upper.tile[0], upper.columns),
            ):
                begin = np.floor((number * side * scale + 1) / upper_side).astype(int).clip(0, most)
                end = np.ceil(((number + 1) * side * scale - 1) / upper_side).astype(int).clip(0, most)
                spans.append((begin, end))
            (top, bottom), (left, right) = spans
            inside = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
            if inside.any():
                raise UnreadableSlideError(self.path, "its lower levels omit tiles that the first level has")


def _pyramid(tiff: Any) -> tuple[str, list[Any]]:
    """The vendor, and the pages that are levels, largest first.

    Raises:
        ValueError: a kind of file that this reader does not support.
    """
    first = tiff.pages[0]
    description = first.description
    for kind in ("ndpi", "scn", "philips", "bif"):
        if getattr(first, f"is_{kind}"):
            raise ValueError(f"it is a file of the kind {kind}")
    if description.startswith("Aperio"):
        return "aperio", [page for page in tiff.pages if page.is_tiled]
    if first.is_ome:
        return "ome-tiff", _by_size([first, *(first.pages or [])])
    pages = [page for page in tiff.pages if page.is_tiled and (page.index == 0 or page.subfiletype & 1)]
    return "generic-tiff", _by_size([*pages, *(first.pages or [])])


def _refuse_truncated(tiff: Any, levels: list[TiffTiles]) -> None:
    """Refuse a truncated file.

    Raises:
        ValueError: it ends before its tiles or its last directory.
    """
    size, form = tiff.filehandle.size, tiff.tiff
    beyond = sum(int(((each.counts > 0) & (each.offsets + each.counts > size)).sum()) for each in levels)
    if beyond:
        raise ValueError(f"{TRUNCATED}: {beyond} of its {sum(len(each.counts) for each in levels)} tiles are missing")
    last = tiff.pages[-1]
    tiff.filehandle.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, tiff.filehandle.read(form.tagnosize))
    tiff.filehandle.seek(last.offset + form.tagnosize + tags * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, tiff.filehandle.read(form.offsetsize))
    if following >= size or len(last.tags) < tags:
        raise ValueError(f"{TRUNCATED}: its last images are missing")


def _by_size(pages: list[Any]) -> list[Any]:
    return sorted(pages, key=lambda page: -page.imagewidth)


def _resolution(vendor: str, page: Any) -> tuple[float | None, float | None]:
    mpp, objective = None, None
    if vendor == "aperio":
        mpp, objective = aperio_values(page.description)
    elif vendor == "ome-tiff":
        mpp, objective = ome_values(page.description)
    if mpp is None:
        x, y = (page.tags.valueof(name, (0, 1)) for name in ("XResolution", "YResolution"))
        mpp = from_resolution(x[0] / max(x[1], 1), y[0] / max(y[1], 1), int(page.tags.valueof("ResolutionUnit", 2)))
    return mpp, objective
