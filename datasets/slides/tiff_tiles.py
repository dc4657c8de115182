"""Decodes the tiles of one image of a tiled TIFF.

Compressions: none, LZW, Deflate and Zstandard with or without a predictor, JPEG with shared tables (TIFF Technical
Note 2), JPEG 2000 as Aperio writes it. The pixels equal those of libtiff and OpenSlide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

try:
    import imagecodecs
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('slides need imagecodecs, which is not installed; pip install "regard[wsi]"') from error

__all__ = ["TiffTiles", "read_tiles"]

_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _ZSTD = 1, 5, 7, 8, 32946, 50000
_APERIO_YCBCR, _APERIO_RGB = 33003, 33005
_RGB, _YCBCR = 2, 6

#: Largest tile that is decoded, in pixels.
_MAX_TILE = 8192 * 8192


@dataclass(frozen=True, eq=False)
class TiffTiles:
    """Positions and encoding of the tiles of an image.

    Attributes:
        width: of the image in pixels.
        height: of the image in pixels.
        tile: width and height of a tile in pixels.
        offsets: of the tiles in the file, row by row.
        counts: bytes of each tile; 0 for an omitted tile.
        compression: its number in TIFF.
        photometric: its number in TIFF.
        predictor: 2 if differences of neighbours are stored.
        tables: JPEG tables shared by all tiles.
    """

    width: int
    height: int
    tile: tuple[int, int]
    offsets: Int[np.ndarray, " tiles"] = field(repr=False)
    counts: Int[np.ndarray, " tiles"] = field(repr=False)
    compression: int
    photometric: int
    predictor: int = 1
    tables: bytes | None = field(default=None, repr=False)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile[0])

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile[1])

    @property
    def max_count(self) -> int:
        """Bytes that no valid tile exceeds."""
        return 2 * 3 * self.tile[0] * self.tile[1] + 65_536

    def decode(
        self, data: bytes, out: UInt8[np.ndarray, "height width 3"] | None = None
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Decode the pixels of a tile, including those beyond the edge of the image.

        Args:
            data: the tile as it is in the file.
            out: contiguous array of a tile's shape that is filled and returned; by default a new one.

        Raises:
            ValueError: the data are damaged.
        """
        shape = (self.tile[1], self.tile[0], 3)
        if self.compression == _JPEG:
            # libjpeg fills a missing end with grey, without an error
            if b"\xff\xd9" not in data[-64:]:
                raise ValueError("a truncated JPEG tile")
            space = "YCBCR" if self.photometric == _YCBCR else "RGB"
            out = np.empty(shape, np.uint8) if out is None else out
            try:
                imagecodecs.jpeg8_decode(data, tables=self.tables, colorspace=space, outcolorspace="RGB", out=out)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"a JPEG tile that cannot be decoded: {error}") from error
            return out
        try:
            pixels = self._decode_others(data, shape)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"a tile that cannot be decoded: {error}") from error
        if out is None:
            return pixels
        out[...] = pixels
        return out

    def _decode_others(self, data: bytes, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "height width 3"]:
        if self.compression in (_APERIO_RGB, _APERIO_YCBCR):
            pixels = imagecodecs.jpeg2k_decode(data)
            if pixels.shape != shape or pixels.dtype != np.uint8:
                raise ValueError(f"it holds {pixels.shape} of {pixels.dtype}, not {shape} of uint8")
            return _to_rgb(pixels) if self.compression == _APERIO_YCBCR else pixels
        size = 3 * self.tile[0] * self.tile[1]
        raw: bytes | bytearray = data
        if self.compression == _LZW:
            raw = imagecodecs.lzw_decode(data, out=size)
        elif self.compression in (_DEFLATE, _OLD_DEFLATE):
            raw = imagecodecs.zlib_decode(data, out=size)
        elif self.compression == _ZSTD:
            raw = imagecodecs.zstd_decode(data, out=size)
        if len(raw) < size:
            raise ValueError(f"it holds {len(raw)} bytes, not {size}")
        pixels = np.frombuffer(raw, np.uint8, size).reshape(shape)
        return np.add.accumulate(pixels, axis=1, dtype=np.uint8) if self.predictor == 2 else pixels


def read_tiles(page: Any) -> TiffTiles:
    """Read the tile directory of a page of tifffile.

    Raises:
        ValueError: the page is not tiled 8-bit RGB of a known compression, or its directory is damaged.
    """
    name = "its image" if page.index == 0 else f"its image {page.index}"
    if not page.is_tiled:
        raise ValueError(f"{name} is not tiled")
    width, height, tile = int(page.imagewidth), int(page.imagelength), (int(page.tilewidth), int(page.tilelength))
    if min(width, height, *tile) < 1 or tile[0] * tile[1] > _MAX_TILE:
        raise ValueError(f"{name} has {width} x {height} pixels in tiles of {tile[0]} x {tile[1]}")
    depth, samples = page.bitspersample, page.samplesperpixel
    if depth != 8 or samples != 3 or page.sampleformat != 1 or page.planarconfig != 1 or page.imagedepth != 1:
        planes = " in planes" if page.planarconfig != 1 else ""
        raise ValueError(f"{name} has {samples} sample(s) of {depth} bits a pixel{planes}, not interleaved 8-bit RGB")
    compression, photometric, predictor = int(page.compression), int(page.photometric), int(page.predictor)
    known = {_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _ZSTD, _JPEG, _APERIO_YCBCR, _APERIO_RGB}
    if compression not in known or predictor not in (1, 2) or page.fillorder != 1:
        raise ValueError(f"{name} has TIFF's compression {compression} with predictor {predictor}")
    colours = (_RGB, _YCBCR) if compression in (_JPEG, _APERIO_YCBCR, _APERIO_RGB) else (_RGB,)
    if photometric not in colours:
        raise ValueError(f"{name} has TIFF's photometric interpretation {photometric} with compression {compression}")
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    found = TiffTiles(width, height, tile, offsets, counts, compression, photometric, predictor, page.jpegtables)
    if not len(offsets) == len(counts) == found.columns * found.rows:
        raise ValueError(f"{name} lists {len(offsets)} tiles, not {found.columns * found.rows}")
    return found


def _to_rgb(pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """RGB from ITU-R BT.601 YCbCr; the offsets of each channel are rounded once, as in OpenSlide's tables."""
    centred = np.arange(256) - 128
    red, blue = (np.rint(factor * centred).astype(np.int16) for factor in (1.402, 1.772))
    green = np.floor(-0.34414 * centred[:, None] - 0.71414 * centred + 0.5).astype(np.int16)  # Cb Cr
    light, cb, cr = np.moveaxis(pixels, -1, 0)
    channels = np.stack([red[cr], green[cb, cr], blue[cb]], axis=-1)
    return (light[..., None] + channels).clip(0, 255).astype(np.uint8)
