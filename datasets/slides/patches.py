"""Reads the patches of a grid, at exactly its microns per pixel.

A patch is cut from the coarsest level that is at least as fine as requested (to within 1 %). If its side there equals
the patch's, nothing is resampled. Otherwise it is resampled with an antialiased bicubic filter
(`torch.nn.functional.interpolate` on 8-bit pixels): for reductions the result equals, to one grey
level, that of Pillow's resize, which the published encoders' pipelines use, in a fifth of the time. The corner is
rounded to whole pixels of the level, an error of at most half a pixel of the level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8

from .grid import Grid
from .slide import Slide, UnreadableTileError
from .tiff_slide import TiffSlide
from .tile_cache import TileCache

__all__ = ["PatchReader"]

#: Largest share by which a patch may be enlarged before a finer level is used.
_TOLERANCE = 0.01

#: Side of the blocks read from a slide whose tiles are unknown or of an unusual size, in pixels of the level.
_BLOCK = 512

#: Column and row of a tile.
_Tile = tuple[int, int]


class PatchReader:
    """Reads patches in batches, in an order that decodes each tile of the file once.

    Pixels outside the slide are white. Patches with damaged data are skipped. Memory is bounded by the cache, a batch,
    and the tiles of one patch.

    Args:
        slide: an open slide.
        grid: of the patches.
        indices: of the patches in the grid; by default all.
        batch: largest number of patches in a batch.
        threads: that decode in parallel; more than one helps only for a TIFF that is read without OpenSlide.
        cache_bytes: size of the cache of decoded tiles.

    Attributes:
        level: of the pyramid that is read.
        damaged: indices of the patches that the last iteration skipped.

    Raises:
        ValueError: an index is not in the grid, or a number is below 1.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from regard.datasets.slides.opening import open_slide
        >>> corners = np.array([[0, 0], [200, 0]])
        >>> spacing = {"patch": 100, "side": 200, "step": 200, "mpp": 1.0, "slide_mpp": 0.5}
        >>> grid = Grid(corners, np.ones(2), **spacing, width=400, height=200)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (400, 200), "navy").save(Path(folder, "a.png"))
        ...     for indices, pixels in PatchReader(open_slide(Path(folder, "a.png")), grid):
        ...         print(indices, pixels.shape, pixels.dtype)
        [0 1] (2, 100, 100, 3) uint8
    """

    def __init__(
        self,
        slide: Slide,
        grid: Grid,
        indices: Sequence[int] | Int[np.ndarray, " indices"] | None = None,
        *,
        batch: int = 64,
        threads: int = 1,
        cache_bytes: int = 1 << 28,
    ) -> None:
        if min(batch, threads, cache_bytes) < 1:
            raise ValueError(
                f"batch, threads and cache_bytes must be at least 1, not {batch}, {threads}, {cache_bytes}"
            )
        chosen = np.arange(len(grid)) if indices is None else np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(grid):
            raise ValueError(
                f"the grid has {len(grid)} patches; indices are from 0, not {chosen.min()} to {chosen.max()}"
            )
        self.slide, self.grid, self.batch = slide, grid, batch
        self.threads = threads if isinstance(slide, TiffSlide) else 1
        wanted = grid.side / grid.patch
        fine = [index for index, own in enumerate(slide.levels) if own.downsample <= wanted * (1 + _TOLERANCE)]
        self.level = max(fine, key=lambda index: slide.levels[index].downsample, default=0)
        level = slide.levels[self.level]
        self._side = max(1, int(grid.side / level.downsample + 0.5))
        self._corners = np.floor(grid.coordinates / level.downsample + 0.5).astype(np.int64)
        common = level.tile is not None and 64 <= min(level.tile) <= max(level.tile) <= 2048
        self._tile = level.tile if level.tile and (common or isinstance(slide, TiffSlide)) else (_BLOCK, _BLOCK)
        self._cache = TileCache(cache_bytes)
        self._indices = chosen[self._order(chosen)]
        self.damaged: list[int] = []
        self._unreadable: set[_Tile] = set()

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, "n patch patch 3"]]]:
        """Yield indices and pixels of each batch."""
        self.damaged, self._unreadable = [], set()
        self._cache.clear()
        fill = self._fill_with_tiles if self._are_tiles() else self._fill
        with ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext() as pool:
            do: Callable[..., Iterable[Any]] = map if pool is None else pool.map
            for begin in range(0, len(self._indices), self.batch):
                indices = self._indices[begin : begin + self.batch]
                pixels = np.empty((len(indices), self.grid.patch, self.grid.patch, 3), dtype=np.uint8)
                readable = fill(indices, pixels, do)
                if not readable.all():
                    self.damaged += indices[~readable].tolist()
                    indices, pixels = indices[readable], pixels[readable]
                if len(indices):
                    yield indices, pixels
        self._cache.clear()

    def _order(self, indices: Int[np.ndarray, " indices"]) -> Int[np.ndarray, " indices"]:
        """Row by row, within bands so narrow that the tiles of a row of patches fit into half the cache."""
        x, y = self._corners[indices].T
        band = max(self._cache.limit // 6 // (self._side + 2 * self._tile[1]), self._side)
        return np.lexsort((x, y, x // band))

    def _are_tiles(self) -> bool:
        """Whether every patch is one tile of the file, and no tile two patches."""
        if not isinstance(self.slide, TiffSlide) or (self.grid.patch, self.grid.patch) != self._tile:
            return False
        corners = self._corners[self._indices]
        return self._side == self.grid.patch and not (corners % self._side).any() and self._are_unique(corners)

    @staticmethod
    def _are_unique(corners: Int[np.ndarray, "indices 2"]) -> bool:
        return len(np.unique(corners, axis=0)) == len(corners)

    def _fill_with_tiles(
        self, indices: Int[np.ndarray, " n"], pixels: UInt8[np.ndarray, "n patch patch 3"], do: Callable[..., Any]
    ) -> np.ndarray:
        """Decode each patch directly into the batch; returns which are readable."""
        slide, side, level = self.slide, self._side, self.slide.levels[self.level]
        assert isinstance(slide, TiffSlide)

        def fill(corner: Int[np.ndarray, " 2"], out: UInt8[np.ndarray, "patch patch 3"]) -> bool:
            x, y = map(int, corner)
            across, down = level.width - x, level.height - y  # remaining pixels of the level
            try:
                inside = min(x, y) >= 0 and min(across, down) > 0
                if not inside or slide.decode(x // side, y // side, self.level, out) is None:
                    out.fill(255)
            except UnreadableTileError:
                return False
            if across < side or down < side:
                out[max(down, 0) :] = 255
                out[:, max(across, 0) :] = 255
            return True

        return np.array(list(do(fill, self._corners[indices], pixels)), dtype=bool)

    def _fill(
        self, indices: Int[np.ndarray, " n"], pixels: UInt8[np.ndarray, "n patch patch 3"], do: Callable[..., Any]
    ) -> np.ndarray:
        """Decode the tiles that a few patches need and cut the patches from them; returns which are readable."""
        per_patch = 3 * int(np.prod([self._side + 2 * side for side in self._tile]))
        count = max(1, self._cache.limit // 4 // per_patch)
        readable = []
        for begin in range(0, len(indices), count):
            corners = self._corners[indices[begin : begin + count]]
            needed = dict.fromkeys(tile for corner in corners for tile in self._tiles_of(corner))
            tiles = {tile: self._cache.get(tile) for tile in needed}
            missing = [tile for tile, found in tiles.items() if found is None and tile not in self._unreadable]
            for tile, found in zip(missing, do(self._decode, missing), strict=True):
                if found is None:
                    self._unreadable.add(tile)
                    continue
                tiles[tile] = found
                self._cache.keep(tile, found)
            readable += do(lambda corner, out: self._cut(corner, tiles, out), corners, pixels[begin : begin + count])  # noqa: B023
        return np.array(readable, dtype=bool)

    def _tiles_of(self, corner: Int[np.ndarray, " 2"]) -> Iterator[_Tile]:
        """Columns and rows of the tiles under a patch, within the slide."""
        level = self.slide.levels[self.level]
        (left, top), (across, down) = map(int, corner), self._tile
        right, bottom = min(left + self._side, level.width), min(top + self._side, level.height)
        for row in range(max(top, 0) // down, -(-bottom // down)):
            for column in range(max(left, 0) // across, -(-right // across)):
                yield column, row

    def _decode(self, tile: _Tile) -> UInt8[np.ndarray, "height width 3"] | None:
        """A tile, with its padding at the edge; None if it is damaged."""
        (column, row), (across, down) = tile, self._tile
        level = self.slide.levels[self.level]
        try:
            if isinstance(self.slide, TiffSlide):
                found = self.slide.decode(column, row, self.level)
                return np.full((down, across, 3), 255, dtype=np.uint8) if found is None else found
            x, y = (round(number * side * level.downsample) for number, side in zip(tile, self._tile, strict=True))
            width, height = min(across, level.width - column * across), min(down, level.height - row * down)
            return self.slide.read(x, y, width, height, self.level)
        except UnreadableTileError:
            return None

    def _cut(
        self,
        corner: Int[np.ndarray, " 2"],
        tiles: dict[_Tile, UInt8[np.ndarray, "height width 3"] | None],
        out: UInt8[np.ndarray, "patch patch 3"],
    ) -> bool:
        """Assemble a patch from its tiles and resample it into `out`; returns whether it is readable."""
        level, side = self.slide.levels[self.level], self._side
        left, top = map(int, corner)
        right, bottom = min(left + side, level.width), min(top + side, level.height)
        direct = side == self.grid.patch
        region = out if direct else np.empty((side, side, 3), dtype=np.uint8)
        if left < 0 or top < 0 or right < left + side or bottom < top + side:
            region.fill(255)
        for column, row in self._tiles_of(corner):
            tile = tiles[column, row]
            if tile is None:
                if isinstance(self.slide, TiffSlide):
                    return False
                try:  # a block is larger than a tile of the file; the patch itself may be readable
                    x, y = (round(number * level.downsample) for number in (left, top))
                    region[...] = self.slide.read(x, y, side, side, self.level)
                    break
                except UnreadableTileError:
                    return False
            x, y = column * self._tile[0], row * self._tile[1]
            x0, x1 = max(left, x, 0), min(right, x + self._tile[0])
            y0, y1 = max(top, y, 0), min(bottom, y + self._tile[1])
            if x0 < x1 and y0 < y1:
                region[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        if not direct:
            planes = torch.from_numpy(region).permute(2, 0, 1)[None]
            small = F.interpolate(planes, size=(self.grid.patch, self.grid.patch), mode="bicubic", antialias=True)
            out[...] = small[0].permute(1, 2, 0).numpy()
        return True
