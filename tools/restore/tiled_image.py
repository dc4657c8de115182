"""Restore one image from file to file, in tiles, within a memory limit."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ... import __version__
from ...datasets.full_depth_image import FullDepthImage, read_full_depth_image
from ...datasets.png_stream import write_png
from ...vision.tiling import TileCost, largest_tile, restore_strips
from ...whole_files import whole_file

__all__ = ["Restorer", "resident_bytes", "restore_file"]

#: Rows that are rounded and written at a time.
_ROWS = 64

#: Share of the memory limit that is left to allocators and libraries.
_SPARE = 0.2

#: Rows around a row that cubic interpolation uses.
_REACH = 4


@dataclass(frozen=True)
class Restorer:
    """A network and how to use it.

    Attributes:
        model: with `scale`, `window_size` and `in_chans`.
        name: of the model, for the metadata of results.
        limit: memory limit of the process in bytes.
        cost: memory of a tile.
        tile: side of a tile in pixels; None is the largest that fits.
        overlap: overlap of tiles in pixels.
        quality: quality of lossy formats, 1-100.
    """

    model: nn.Module
    name: str
    limit: float
    cost: TileCost
    tile: int | None
    overlap: int
    quality: int = 95


def restore_file(
    restorer: Restorer, source: Path, target: Path, step: Callable[[int], None] = lambda pixels: None
) -> dict[str, Any]:
    """Restore an image; the result is complete or absent.

    Args:
        restorer: the network and how to use it.
        source: an image in one of Pillow's formats.
        target: .png, .jpg, .webp or .tiff.
        step: called with the number of pixels of `source` that were restored.

    Returns:
        Sizes of both, the side of the tiles, and notes.

    Raises:
        UnreadableImageError: the image cannot be read.
        ValueError: the memory limit is too low, or the format cannot hold the result.
        OSError: the result cannot be written.
    """
    image = read_full_depth_image(source)
    scale: int = restorer.model.scale  # type: ignore[assignment]
    height, width = image.pixels.shape[:2]
    size = width * scale, height * scale
    streamed = target.suffix.lower() == ".png"
    if not streamed:
        _check_format(target.suffix.lower(), image, size)
    pixels = _check_channels(restorer.model, image.pixels)
    tile = restorer.tile or _fitting_tile(restorer, pixels.shape, 0 if streamed else 7 * size[0] * size[1])
    strips = restore_strips(restorer.model, pixels, tile=tile, overlap=restorer.overlap, step=step)
    lines = _finished_lines(strips, image, scale)
    exif = _resized_exif(image.exif, size)
    with whole_file(target) as partial:
        if streamed:
            made_by = f"regard {__version__}, {restorer.name}"
            write_png(partial, size, lines, profile=image.profile, exif=exif, software=made_by)
        else:
            _write_whole(partial, lines, size, image, exif, restorer.quality)
    return {"from": [width, height], "to": list(size), "tile": min(tile, max(width, height)), "notes": image.notes}


def resident_bytes() -> int:
    """Memory that this process holds, in bytes; its peak where the system does not give the current value."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _check_channels(model: Any, pixels: np.ndarray) -> np.ndarray:
    if model.in_chans in (1, pixels.shape[2]) or pixels.shape[2] == 1:
        return pixels
    raise ValueError(f"the image has {pixels.shape[2]} channels, the network expects {model.in_chans}")


def _fitting_tile(restorer: Restorer, shape: tuple[int, ...], other_bytes: int) -> int:
    """Choose the largest tile that keeps the process below its limit."""
    height, width, channels = shape
    given: Any = restorer.model
    free = restorer.limit - resident_bytes() - other_bytes
    weight = next(restorer.model.parameters())
    if weight.device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(weight.device)[0])
    sizes: dict[str, Any] = {"channels": channels, "overlap": restorer.overlap}
    tile = largest_tile(restorer.model, restorer.cost, height, width, limit=free * (1 - _SPARE), **sizes)
    if tile:
        return tile
    smallest = max(given.window_size, 2 * restorer.overlap)
    waiting = 4 * channels * given.scale**2 * width * (smallest + restorer.overlap + 3 * smallest)
    wanted = (restorer.cost.bytes_for(smallest**2) + waiting) / (1 - _SPARE) + restorer.limit - free
    raise ValueError(
        f"{width} x {height} pixels do not fit into the memory limit of {restorer.limit / 1e9:.2f} GB, not even in "
        f"tiles of {smallest} px; --memory {wanted / 1e9 + 0.1:.1f}GB is enough"
        + (", or use --format png, which is written line by line" if other_bytes else "")
    )


def _finished_lines(strips: Iterator[torch.Tensor], image: FullDepthImage, scale: int) -> Iterator[np.ndarray]:
    """Yield rows of the result as integers with the bits of the image, and its transparency."""
    dtype = image.pixels.dtype
    max_value = np.iinfo(dtype).max
    first = 0
    for strip in strips:
        for part in strip.split(_ROWS, dim=1):
            rows = part.permute(1, 2, 0).mul(max_value).round_().clamp_(0, max_value).numpy().astype(dtype)
            if image.alpha is not None:
                rows = np.concatenate([rows, _opacity(image.alpha, first, len(rows), scale)[..., None]], axis=2)
            first += len(rows)
            yield rows


def _opacity(alpha: np.ndarray, first: int, count: int, scale: int) -> np.ndarray:
    """Enlarge some rows of the transparency by cubic interpolation."""
    start, stop = max(0, first // scale - _REACH), -(-(first + count) // scale) + _REACH
    rows = torch.from_numpy(alpha[start:stop].astype(np.float32))[None, None]
    wide = rows if scale == 1 else F.interpolate(rows, scale_factor=scale, mode="bicubic", align_corners=False)
    max_value = np.iinfo(alpha.dtype).max
    offset = first - start * scale
    return wide[0, 0, offset : offset + count].round().clamp(0, max_value).numpy().astype(alpha.dtype)


def _check_format(suffix: str, image: FullDepthImage, size: tuple[int, int]) -> None:
    """Check that a format other than PNG can hold the result."""
    max_px = {".jpg": 65_500, ".webp": 16_383}.get(suffix, 2**31)
    reasons = {
        "transparency": suffix == ".jpg" and image.alpha is not None,
        "16 bits": image.pixels.dtype != np.uint8,
        f"sides of more than {max_px} px": max(size) > max_px,
    }
    wrong = next((reason for reason, holds in reasons.items() if holds), None)
    if wrong:
        raise ValueError(f"{suffix[1:]} files of {size[0]} x {size[1]} pixels cannot have {wrong}; use png")


def _write_whole(
    path: Path,
    lines: Iterator[np.ndarray],
    size: tuple[int, int],
    image: FullDepthImage,
    exif: bytes | None,
    quality: int,
) -> None:
    """Assemble the result in memory, then write it with Pillow."""
    channels = image.pixels.shape[2] + (image.alpha is not None)
    whole = np.empty((size[1], size[0], channels), np.uint8)
    first = 0
    for rows in lines:
        whole[first : first + len(rows)] = rows
        first += len(rows)
    kept: dict[str, Any] = {key: value for key, value in (("icc_profile", image.profile), ("exif", exif)) if value}
    if path.suffix.lower() in (".tif", ".tiff"):
        kept |= {} if exif else {"compression": "tiff_deflate"}  # Pillow cannot compress a TIFF with EXIF data
    else:
        kept["quality"] = quality
    Image.fromarray(whole[..., 0] if channels == 1 else whole).save(path, **kept)


def _resized_exif(exif: bytes | None, size: tuple[int, int]) -> bytes | None:
    """Set the width and height in EXIF data, if it has them, to those of the result."""
    if exif is None:
        return None
    try:
        read = Image.Exif()
        read.load(exif)
        below = read.get_ifd(0x8769)
        if below.keys() & {0xA002, 0xA003}:
            below[0xA002], below[0xA003] = size
            return read.tobytes()
    except Exception:  # damaged data is copied unchanged
        pass
    return exif
