"""Tiled restoration of images of any size, from top to bottom, in bounded memory.

Tiles start and end on the window grid of the network, so that windows are the same as in the whole image. They overlap:
near an inner border a tile lacks context, so the outer `MARGIN` of an overlap is discarded, and over the rest one tile
fades into the other along a raised cosine. HAT's channel attention averages over its whole input, so some tiles are run
first for means that all tiles share (`regard.vision.shared_means`). The authors' tiles (XPixelGroup/HAT@1638a9a,
hat/models/hat_model.py) are 256 to 512 px with 32 px of context, without blending, each with its own means.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .shared_means import average_means, hold_means

__all__ = ["MARGIN", "TileCost", "cut_evenly", "fade", "largest_tile", "restore_strips", "tile_cost"]

#: Share of an overlap at each end where only one tile is used.
MARGIN = 0.25

#: Minimum number of tiles for the shared means.
MIN_SAMPLED = 4


def restore_strips(
    model: nn.Module,
    image: Shaped[np.ndarray, "height width channels"],
    *,
    tile: int,
    overlap: int,
    share_means: bool = True,
    step: Callable[[int], None] = lambda pixels: None,
) -> Iterator[Float[Tensor, "channels rows scaled_width"]]:
    """Restore an image tile by tile and yield finished strips of it, from top to bottom.

    Two strips of tiles are held at a time, whatever the height of the image.

    Args:
        model: a network with the attributes `scale`, `window_size` and `in_chans`, such as `regard`'s HAT.
        image: 8 or 16 bits, of `in_chans` channels; or of any number for a network of one channel, which is applied to
            each; or grey for a network of three, whose three outputs are averaged.
        tile: side of a tile in pixels of the image; it is rounded down to whole windows.
        overlap: pixels that neighbouring tiles share, rounded up to whole windows; at most half a tile.
        share_means: whether channel attention has the same means in all tiles, for which a few tiles, or one in eight
            of many, are run twice.
        step: called with the number of pixels of the image that are newly done.

    Raises:
        ValueError: the channels do not fit, or tiles and overlap do not.

    Example:
        >>> from regard import create_model
        >>> model = create_model("hat_tiny_x2", dim=8, depths=(1,), num_heads=2).eval()
        >>> strips = restore_strips(model, np.zeros((40, 30, 3), np.uint8), tile=32, overlap=8)
        >>> [tuple(strip.shape) for strip in strips]
        [(3, 32, 60), (3, 48, 60)]
    """
    given: Any = model
    scale, window, channels = given.scale, given.window_size, image.shape[2]
    if given.in_chans not in (1, channels) and channels != 1:
        raise ValueError(f"the image has {channels} channels, the network expects {given.in_chans}")
    tile, overlap = tile // window * window, -(-overlap // window) * window
    height, width = image.shape[:2]
    if tile < max(height, width) and not 0 < tile - overlap >= overlap:
        raise ValueError(
            f"tiles of {tile} px with an overlap of {overlap} px do not fit: an overlap is at most half a tile "
            f"(both are whole windows of {window} px); use a larger tile or a smaller overlap"
        )
    rows, columns = (cut_evenly(length, tile, overlap, window) for length in (height, width))
    shared = overlap * scale
    ramp = fade(shared)
    held: Tensor | None = None
    tiles = list(itertools.product(rows, columns))
    sample = _spread(tiles, MIN_SAMPLED + len(tiles) // 8) if share_means and len(tiles) > 1 else []
    means = average_means(model, ((_area(*area), partial(_restore_one, model, image[area])) for area in sample))
    above = 0
    for row in rows:
        left = 0
        strip = torch.zeros(channels, (row.stop - row.start) * scale, width * scale)
        for column in columns:
            with hold_means(model, means):
                part = _restore_one(model, image[row, column])
            target = strip[:, :, column.start * scale : column.stop * scale]
            if column is not columns[0]:
                part[:, :, :shared] *= ramp
            if column is not columns[-1]:
                part[:, :, part.shape[2] - shared :] *= 1 - ramp
            target += part
            step((row.stop - above) * (column.stop - left))
            left = column.stop
        above = row.stop
        if held is not None:
            strip[:, :shared].mul_(ramp.unsqueeze(1)).add_(held)
        if row is rows[-1]:
            yield strip
        else:
            last = strip.shape[1] - shared
            held = strip[:, last:] * (1 - ramp).unsqueeze(1)
            yield strip[:, :last]
        del strip


def _area(row: slice, column: slice) -> int:
    return (row.stop - row.start) * (column.stop - column.start)


def _spread(tiles: Sequence[tuple[slice, slice]], count: int) -> list[tuple[slice, slice]]:
    """Evenly spaced tiles."""
    chosen = torch.linspace(0, len(tiles) - 1, min(count, len(tiles))).round().int().tolist()
    return [tiles[index] for index in chosen]


def _restore_one(model: Any, pixels: np.ndarray) -> Float[Tensor, "channels height width"]:
    """One tile in 0-1, with the channels of the pixels."""
    weight = next(model.parameters())
    x = torch.from_numpy(pixels.astype(np.float32)).to(weight.device).permute(2, 0, 1) / np.iinfo(pixels.dtype).max
    batch = x.unsqueeze(1) if model.in_chans == 1 else x.unsqueeze(0).expand(1, model.in_chans, -1, -1)
    with torch.no_grad():
        restored = torch.cat([model(one.to(weight.dtype)) for one in batch.split(1)])
        restored = restored.squeeze(1) if model.in_chans == 1 else restored.squeeze(0)
        restored = restored.float().cpu()
        return restored if len(restored) == len(x) else restored.mean(dim=0, keepdim=True)


def cut_evenly(length: int, tile: int, overlap: int, window: int) -> list[slice]:
    """The fewest intervals that cover an axis, of equal length except for a shorter last one; all start on windows.

    Args:
        length: of the axis.
        tile: the longest interval, in whole windows.
        overlap: of neighbours, in whole windows.
        window: what starts are multiples of.

    Example:
        >>> [(one.start, one.stop) for one in cut_evenly(100, 64, 16, 8)]
        [(0, 64), (48, 100)]
        >>> [(one.start, one.stop) for one in cut_evenly(60, 64, 16, 8)]
        [(0, 60)]
    """
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    side = (
        -(-(length + (count - 1) * overlap) // (count * window)) * window
    )  # the same number of tiles, as short as can be
    starts = range(0, length - overlap, side - overlap)
    return [slice(start, min(start + side, length)) for start in starts]


def fade(length: int) -> Float[Tensor, " length"]:
    """Weight of the second of two tiles along their overlap: 0, a raised cosine, 1.

    Example:
        >>> fade(8)
        tensor([0.0000, 0.0000, 0.0381, 0.3087, 0.6913, 0.9619, 1.0000, 1.0000])
    """
    middle = (torch.arange(length) + 0.5) / max(1, length)
    progress = ((middle - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)
    return (1 - torch.cos(torch.pi * progress)) / 2


@dataclass(frozen=True)
class TileCost:
    """Memory that a network needs for a tile: `fixed + per_pixel * pixels` bytes, in addition to its weights.

    Attributes:
        fixed: bytes of any tile.
        per_pixel: bytes more for every pixel of it.
    """

    fixed: float
    per_pixel: float

    def bytes_for(self, pixels: int) -> float:
        """For a tile of this many pixels."""
        return self.fixed + self.per_pixel * pixels


def tile_cost(model: nn.Module, peak_bytes: Callable[[Callable[[], Any]], int]) -> TileCost:
    """Measure the memory of two small tiles and fit a line; larger tiles grow no faster.

    Args:
        model: as in `restore_strips`.
        peak_bytes: calls a function and returns its peak memory, such as
            `regard.tools.benchmark.profiler.peak_bytes`.
    """
    given: Any = model
    weight = next(model.parameters())
    found = []
    for windows in (2, 3) if given.window_size >= 16 else (4, 6):
        side = windows * given.window_size
        x = torch.rand(1, given.in_chans, side, side, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            found.append((side**2, peak_bytes(lambda x=x: given(x))))  # type: ignore[misc]
    (few, low), (many, high) = found
    per_pixel = max(0.0, (high - low) / (many - few))
    return TileCost(max(0.0, low - per_pixel * few), per_pixel)


def largest_tile(
    model: nn.Module, cost: TileCost, height: int, width: int, *, channels: int, overlap: int, limit: float
) -> int:
    """The largest tile for an image whose restoration stays below a limit; its side is in whole windows.

    Args:
        model: as in `restore_strips`.
        cost: memory cost of its tiles.
        height: height of the image in pixels.
        width: width of the image in pixels.
        channels: channels of the image.
        overlap: as in `restore_strips`.
        limit: bytes for tiles and for the strips of the result that wait, in addition to weights and the image itself.

    Returns:
        A side in pixels, at most `MAX_SIDE`; or 0 if not even the smallest tile would fit.
    """
    given: Any = model
    window, scale = given.window_size, given.scale
    overlap = -(-overlap // window) * window
    chosen = 0
    for side in itertools.count(max(window, 2 * overlap), window):
        high, wide = min(side, height), min(side, width)
        waiting = 4 * channels * scale**2 * (width * (high + overlap) + 3 * high * wide)
        if side > MAX_SIDE or cost.bytes_for(high * wide) + waiting > limit:
            return chosen
        chosen = side
        if side >= max(height, width):
            return chosen
    return chosen


#: Maximum side of an automatically chosen tile; larger ones save little.
MAX_SIDE = 1024
