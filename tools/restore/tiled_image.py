"""One image restored from file to file: tiles in, strips out, and the memory that it all may take."""

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

#: Rows of a strip that are rounded and written at a time.
_ROWS = 64

#: Share of the memory that is left over to what nobody counts: allocators, and the libraries' own.
_SPARE = 0.2

#: Pixels around a row that cubic interpolation looks at.
_REACH = 4


@dataclass(frozen=True)
class Restorer:
    """A network and how it is used.

    Attributes:
        model: with `scale`, `window_size` and `in_chans`.
        name: what results say made them.
        limit: bytes that the process may take.
        cost: of a tile.
        tile: side of a tile in pixels, or None for the largest that fits.
        overlap: of tiles, in pixels.
        quality: of formats that lose something, 1-100.
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
    """Restore an image; the result is there whole or not at all.

    Args:
        restorer: with what.
        source: an image in one of Pillow's formats.
        target: .png, .jpg, .webp or .tiff.
        step: is told how many pixels of `source` are done.

    Returns:
        Sizes of both, the side of the tiles, and notes in words.

    Raises:
        UnreadableImageError: the image cannot be read.
        ValueError: the memory is too little, or the format cannot hold the result.
        OSError: the result cannot be written.
    """
    image = read_full_depth_image(source)
    scale: int = restorer.model.scale  # type: ignore[assignment]
    height, width = image.pixels.shape[:2]
    size = width * scale, height * scale
    streamed = target.suffix.lower() == ".png"
    if not streamed:
        _check_format(target.suffix.lower(), image, size)
    pixels = _colours_for(restorer.model, image.pixels)
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
    """Memory that this process holds now; where the system does not say, the most that it ever held."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _colours_for(model: Any, pixels: np.ndarray) -> np.ndarray:
    if model.in_chans in (1, pixels.shape[2]) or pixels.shape[2] == 1:
        return pixels
    raise ValueError(f"the image has {pixels.shape[2]} channels, the network takes {model.in_chans}")


def _fitting_tile(restorer: Restorer, shape: tuple[int, ...], besides: int) -> int:
    """The largest tile that keeps the process below its limit."""
    height, width, channels = shape
    given: Any = restorer.model
    free = restorer.limit - resident_bytes() - besides
    weight = next(restorer.model.parameters())
    if weight.device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(weight.device)[0])
    sizes: dict[str, Any] = {"channels": channels, "overlap": restorer.overlap}
    tile = largest_tile(restorer.model, restorer.cost, height, width, limit=free * (1 - _SPARE), **sizes)
    if tile:
        return tile
    least = max(given.window_size, 2 * restorer.overlap)
    waiting = 4 * channels * given.scale**2 * width * (least + restorer.overlap + 3 * least)
    wanted = (restorer.cost.bytes_for(least**2) + waiting) / (1 - _SPARE) + restorer.limit - free
    raise ValueError(
        f"{width} x {height} pixels do not fit into the memory of {restorer.limit / 1e9:.2f} GB, not even in tiles of "
        f"{least} px; --memory {wanted / 1e9 + 0.1:.1f}GB would do"
        + (", or --format png, which is written line by line" if besides else "")
    )


def _finished_lines(strips: Iterator[torch.Tensor], image: FullDepthImage, scale: int) -> Iterator[np.ndarray]:
    """Rows of the result as integers of as many bits as the image has, with its transparency."""
    dtype = image.pixels.dtype
    most = np.iinfo(dtype).max
    first = 0
    for strip in strips:
        for part in strip.split(_ROWS, dim=1):
            rows = part.permute(1, 2, 0).mul(most).round_().clamp_(0, most).numpy().astype(dtype)
            if image.alpha is not None:
                rows = np.concatenate([rows, _opacity(image.alpha, first, len(rows), scale)[..., None]], axis=2)
            first += len(rows)
            yield rows


def _opacity(alpha: np.ndarray, first: int, count: int, scale: int) -> np.ndarray:
    """Some rows of the transparency, enlarged by cubic interpolation."""
    start, stop = max(0, first // scale - _REACH), -(-(first + count) // scale) + _REACH
    rows = torch.from_numpy(alpha[start:stop].astype(np.float32))[None, None]
    wide = rows if scale == 1 else F.interpolate(rows, scale_factor=scale, mode="bicubic", align_corners=False)
    most = np.iinfo(alpha.dtype).max
    begin = first - start * scale
    return wide[0, 0, begin : begin + count].round().clamp(0, most).numpy().astype(alpha.dtype)


def _check_format(suffix: str, image: FullDepthImage, size: tuple[int, int]) -> None:
    """See that a format other than PNG can hold the result."""
    longest = {".jpg": 65_500, ".webp": 16_383}.get(suffix, 2**31)
    reasons = {
        "transparency": suffix == ".jpg" and image.alpha is not None,
        "16 bits": image.pixels.dtype != np.uint8,
        f"sides of more than {longest} px": max(size) > longest,
    }
    wrong = next((reason for reason, holds in reasons.items() if holds), None)
    if wrong:
        raise ValueError(f"{suffix[1:]} files of {size[0]} x {size[1]} pixels cannot have {wrong} here; png can")


def _write_whole(
    path: Path,
    lines: Iterator[np.ndarray],
    size: tuple[int, int],
    image: FullDepthImage,
    exif: bytes | None,
    quality: int,
) -> None:
    """Put the result together in memory, then write it with Pillow."""
    channels = image.pixels.shape[2] + (image.alpha is not None)
    whole = np.empty((size[1], size[0], channels), np.uint8)
    first = 0
    for rows in lines:
        whole[first : first + len(rows)] = rows
        first += len(rows)
    kept: dict[str, Any] = {key: value for key, value in (("icc_profile", image.profile), ("exif", exif)) if value}
    if path.suffix.lower() in (".tif", ".tiff"):
        kept |= {} if exif else {"compression": "tiff_deflate"}  # Pillow's library for it fails on EXIF data
    else:
        kept["quality"] = quality
    Image.fromarray(whole[..., 0] if channels == 1 else whole).save(path, **kept)


def _resized_exif(exif: bytes | None, size: tuple[int, int]) -> bytes | None:
    """EXIF data whose entries for width and height, if it has them, are those of the result."""
    if exif is None:
        return None
    try:
        read = Image.Exif()
        read.load(exif)
        below = read.get_ifd(0x8769)
        if below.keys() & {0xA002, 0xA003}:
            below[0xA002], below[0xA003] = size
            return read.tobytes()
    except Exception:  # damaged data goes along as it is
        pass
    return exif
