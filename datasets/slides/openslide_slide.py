"""Slides of every format that OpenSlide reads: Aperio, DICOM, Hamamatsu, Leica, MIRAX, Philips, Ventana, Zeiss ...

Source: openslide.org/api/python, OpenSlide 4. Colour profiles are not applied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .resolution import downsample, from_resolution, microscopic, positive
from .slide import Level, UnreadableSlideError, UnreadableTileError

try:
    import openslide
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('slides need OpenSlide, which is not installed; pip install "regard[wsi]"') from error

__all__ = ["OpenSlideSlide"]


class OpenSlideSlide:
    """A slide, read by OpenSlide; see `Slide` for the attributes.

    Args:
        path: the file; of DICOM any file of the series, or its folder.
        mpp: microns per pixel at full resolution; by default from the file.
        cache_bytes: size of OpenSlide's cache of decoded tiles.

    Raises:
        UnreadableSlideError: OpenSlide does not read it.
    """

    reader = "openslide"

    def __init__(self, path: str | Path, *, mpp: float | None = None, cache_bytes: int = 1 << 26) -> None:
        self.path = str(path)
        self._cache_bytes = cache_bytes
        self._handle: Any = None
        self._process = 0
        self._file = self.path
        if Path(path).is_dir():
            self._file = _file_of_series(Path(path))
        handle = self._open()
        properties = handle.properties
        self.vendor = properties.get("openslide.vendor", "unknown")
        self.mpp = mpp if mpp is not None else _mpp(properties)
        self.objective = positive(properties.get("openslide.objective-power"))
        levels = []
        for index, (across, down) in enumerate(handle.level_dimensions):
            sides = [properties.get(f"openslide.level[{index}].tile-{side}") for side in ("width", "height")]
            tile = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
            levels.append(Level(across, down, downsample(handle.dimensions, (across, down)), tile))
        self.levels: Sequence[Level] = levels
        whole = (0, 0, *handle.dimensions)
        bounds = [properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
        x, y, width, height = (int(own) if own else other for own, other in zip(bounds, whole, strict=True))
        self.bounds = (x, y, width, height)

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> UInt8[np.ndarray, "height width 3"]:
        """Read a rectangle in RGB; see `Slide.read`."""
        if not width or not height:
            return np.empty((height, width, 3), dtype=np.uint8)
        try:
            handle = self._open()
            if level:  # OpenSlide's own downsample is a little off where ours is a whole number
                own = handle.level_downsamples[level] / self.levels[level].downsample
                x, y = round(x * own), round(y * own)
            region = np.asarray(handle.read_region((x, y), level, (width, height)))
        except (openslide.OpenSlideError, UnreadableSlideError) as error:
            self.close()  # after an error a handle stays unusable
            raise UnreadableTileError(self.path, f"{width} x {height} at {x}, {y}, level {level}: {error}") from error
        if (region.view("<u4") >= 0xFF000000).all():
            return cv2.cvtColor(region, cv2.COLOR_RGBA2RGB)
        opaque = region[..., 3:].astype(np.uint16)
        return ((region[..., :3] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)

    def associated(self) -> dict[str, Image.Image]:
        """Associated images; see `Slide.associated`."""
        images = {}
        for name in list(self._open().associated_images):
            try:
                image = self._open().associated_images[name]
            except openslide.OpenSlideError:
                self.close()
                continue
            white = Image.new("RGBA", image.size, "white")
            images[name] = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        return images

    def close(self) -> None:
        """Close the file and drop the cache; the next read opens it again."""
        if self._handle is not None and self._process == os.getpid():
            self._handle.close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}

    def _open(self) -> Any:
        if self._handle is None or self._process != os.getpid():  # threads and locks do not survive a fork
            try:
                handle = openslide.OpenSlide(self._file)
            except openslide.OpenSlideUnsupportedFormatError as error:
                raise UnreadableSlideError(self.path, "OpenSlide does not know its format") from error
            except openslide.OpenSlideError as error:
                raise UnreadableSlideError(self.path, str(error)) from error
            handle.set_cache(openslide.OpenSlideCache(self._cache_bytes))
            self._handle, self._process = handle, os.getpid()
        return self._handle


def _mpp(properties: Any) -> float | None:
    values = [positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
    if values[0] and values[1]:
        return microscopic((values[0] + values[1]) / 2)
    x, y = (positive(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    unit = {"inch": 2, "centimeter": 3}.get(properties.get("tiff.ResolutionUnit", ""), 1)
    return from_resolution(x, y, unit) if x and y else None


def _file_of_series(folder: Path) -> str:
    """A file of the DICOM series in a folder that OpenSlide opens; larger files, which hold the pyramid, first."""
    files = sorted(folder.glob("*.dcm"), key=lambda file: (-file.stat().st_size, file.name))
    if not files:
        raise UnreadableSlideError(str(folder), "it is a folder without a DICOM series; give its files")
    for file in files:
        if openslide.OpenSlide.detect_format(file) is not None:
            return str(file)
    raise UnreadableSlideError(str(folder), f"OpenSlide reads none of its {len(files)} DICOM files")
