"""Writes slides as tiled TIFF pyramids: Aperio, generic TIFF or OME-TIFF.

Sources: openslide.org/formats/aperio and formats/generic-tiff, for the levels, microns per pixel and objective that
OpenSlide finds; docs.openmicroscopy.org/ome-model, specification 6, for the SubIFDs of OME-TIFF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image

from ...whole_files import whole_file

__all__ = ["write_slide"]

#: x, y, width and height in pixels of full resolution -> pixels, or None for white.
Source = Callable[[int, int, int, int], np.ndarray | None]


def write_slide(
    path: str | Path,
    image: UInt8[np.ndarray, "height width 3"] | Source,
    *,
    size: tuple[int, int] | None = None,
    mpp: float | None = None,
    objective: float | None = None,
    levels: Sequence[int] = (1, 4, 16),
    kind: Literal["aperio", "generic", "ome"] = "aperio",
    tile: int = 256,
    quality: int | None = 85,
) -> None:
    """Write a slide, whole or not at all.

    Args:
        path: of the file.
        image: the image, or a function that returns the rectangle at x, y of width and height in pixels of full
            resolution, or None for a tile that the file omits, which is white. It is called once for each tile, row
            by row, so that only the lower levels need to fit in memory.
        size: width and height, for a function.
        mpp: microns per pixel.
        objective: magnification; generic TIFF cannot store it.
        levels: downsamples of the levels, 1 first, each a power of two times the one before.
        kind: `aperio` also has a thumbnail and a label, `ome` stores its levels in SubIFDs.
        tile: side of a tile in pixels, a multiple of 16.
        quality: of JPEG, 1-100; None compresses without loss.

    Raises:
        ValueError: a wrong size, tile, or list of levels.
    """
    path = Path(path)
    if not callable(image):
        height, width = image.shape[:2]
        source: Source = lambda x, y, across, down: image[y : y + down, x : x + across]  # noqa: E731
    elif size is None:
        raise ValueError("an image that is a function needs the size of the slide: size=(width, height)")
    else:
        (width, height), source = size, image
    if tile < 16 or tile % 16 or min(width, height) < 1:
        raise ValueError(
            f"the slide is {width} x {height} pixels and tile is {tile}; give at least 1 pixel, and a multiple of 16"
        )
    steps = [lower // upper for upper, lower in pairwise(levels)]
    whole = [upper * step for upper, step in zip(levels, steps, strict=False)] == list(levels[1:])
    if not levels or levels[0] != 1 or not whole or any(step < 2 or tile % step or step & step - 1 for step in steps):
        raise ValueError(f"levels are {list(levels)}; give 1 first, and then powers of two that divide the tile")
    if min(width, height) < levels[-1]:
        raise ValueError(f"a slide of {width} x {height} pixels has no level of 1/{levels[-1]}; leave it out")
    with whole_file(path) as partial, tifffile.TiffWriter(partial, bigtiff=3 * width * height > 1 << 32) as writer:
        _Pyramid(source, width, height, levels, steps, tile).write(writer, kind, mpp, objective, quality)


class _Pyramid:
    """The tiles of all levels; the lower ones are computed while those above are written."""

    def __init__(
        self, source: Source, width: int, height: int, levels: Sequence[int], steps: Sequence[int], tile: int
    ) -> None:
        self.source, self.steps, self.tile = source, steps, tile
        self.sizes = [(width // scale, height // scale) for scale in levels]
        self.lower: list[dict[tuple[int, int], np.ndarray]] = [{} for _ in levels]

    def tiles(self, level: int, quality: int | None) -> Iterator[bytes]:
        """Encoded tiles of a level, row by row, empty where omitted; padding repeats the edge."""
        width, height = self.sizes[level]
        for row in range(-(-height // self.tile)):
            for column in range(-(-width // self.tile)):
                x, y = column * self.tile, row * self.tile
                across, down = min(self.tile, width - x), min(self.tile, height - y)
                if level == 0:
                    pixels = self.source(x, y, across, down)
                else:
                    pixels = self.lower[level].pop((column, row), None)
                    pixels = None if pixels is None else pixels[:down, :across]
                if pixels is not None:
                    beyond = ((0, self.tile - down), (0, self.tile - across), (0, 0))
                    pixels = np.pad(pixels, beyond, mode="edge") if down < self.tile or across < self.tile else pixels
                    pixels = np.ascontiguousarray(pixels)
                    self._reduce_tile(pixels, level, column, row)
                yield b"" if pixels is None else _encode_tile(pixels, quality)

    def write(self, writer: Any, kind: str, mpp: float | None, objective: float | None, quality: int | None) -> None:
        options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "dtype": np.uint8}
        options["compression"] = "deflate" if quality is None else "jpeg"
        if kind != "aperio" and mpp is not None:
            options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
        for level, (width, height) in enumerate(self.sizes):
            own: dict[str, Any] = {"shape": (height, width, 3), "tile": (self.tile, self.tile)}
            if kind == "aperio":
                own["description"] = self._aperio(level, mpp, objective)
            elif kind == "ome" and level == 0:
                own |= {"description": _ome_xml(width, height, mpp, objective), "subifds": len(self.sizes) - 1}
            if level and kind != "aperio":
                own["subfiletype"] = 1  # a reduced version of the first
            writer.write(self.tiles(level, quality), **own, **options)
            if kind == "aperio" and level == 0:
                self._write_associated(writer, "thumbnail", self._thumbnail())
        if kind == "aperio":
            self._write_associated(writer, "label", np.full((200, 200, 3), 255, dtype=np.uint8))

    def _reduce_tile(self, pixels: np.ndarray, level: int, column: int, row: int) -> None:
        if level == len(self.steps):
            return
        step = self.steps[level]
        part = self.tile // step
        small = pixels.reshape(part, step, part, step, 3).mean((1, 3), dtype=np.float32)
        key = (column // step, row // step)
        white = np.full((self.tile, self.tile, 3), 255, dtype=np.uint8)
        below = self.lower[level + 1].setdefault(key, white)
        x, y = column % step * part, row % step * part
        below[y : y + part, x : x + part] = small.round()

    def _aperio(self, level: int, mpp: float | None, objective: float | None) -> str:
        (width, height), (across, down) = self.sizes[0], self.sizes[level]
        lines = f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] ({self.tile}x{self.tile})"
        if level:
            return f"{lines} -> {across}x{down} JPEG/RGB Q=85"
        fields = {"AppMag": objective, "MPP": mpp}
        known = "".join(f"|{name} = {value:g}" for name, value in fields.items() if value is not None)
        return f"{lines} JPEG/RGB Q=85{known}"

    def _thumbnail(self) -> UInt8[np.ndarray, "height width 3"]:
        """A thumbnail from the tiles of the second level so far."""
        width, height = (max(1, side * 256 // max(self.sizes[0])) for side in self.sizes[0])
        if len(self.sizes) == 1:
            return np.full((height, width, 3), 255, dtype=np.uint8)
        image = Image.new("RGB", (width, height), "white")
        scale = width / self.sizes[1][0]
        side = max(1, round(self.tile * scale))
        for (column, row), pixels in self.lower[1].items():
            corner = round(column * self.tile * scale), round(row * self.tile * scale)
            image.paste(Image.fromarray(pixels).resize((side, side)), corner)
        return np.asarray(image)

    def _write_associated(self, writer: Any, name: str, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        writer.write(
            pixels,
            photometric="rgb",
            metadata=None,
            compression="jpeg",
            rowsperstrip=height,
            subfiletype=int(name == "label"),
            description=f"Aperio Image Library v12.0.0\r\n{name} {width}x{height}",
        )


def _encode_tile(pixels: UInt8[np.ndarray, "height width 3"], quality: int | None) -> bytes:
    if quality is None:
        return bytes(imagecodecs.zlib_encode(pixels.tobytes()))
    return bytes(imagecodecs.jpeg8_encode(pixels, level=quality, outcolorspace="YCBCR", subsampling="420"))


def _ome_xml(width: int, height: int, mpp: float | None, objective: float | None) -> str:
    size = "" if mpp is None else f' PhysicalSizeX="{mpp!r}" PhysicalSizeY="{mpp!r}"'
    power = f"<Objective ID={quoteattr('Objective:0')}" + (
        "/>" if objective is None else f' NominalMagnification="{objective!r}"/>'
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Instrument ID="Instrument:0">{power}</Instrument><Image ID="Image:0"><ObjectiveSettings ID="Objective:0"/>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" '
        f'SizeZ="1" SizeT="1" Interleaved="true"{size}><Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
