"""A cache of recently used tiles, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from jaxtyping import UInt8

__all__ = ["TileCache"]


class TileCache:
    """A least-recently-used cache of arrays.

    Args:
        limit: largest total size of the arrays in bytes; 0 keeps nothing.

    Raises:
        ValueError: the limit is negative.

    Example:
        >>> cache = TileCache(200)
        >>> for name in "abc":
        ...     cache.keep(name, np.zeros((5, 5, 3), dtype=np.uint8))
        >>> [cache.get(name) is not None for name in "abc"]
        [False, True, True]
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"limit is {limit}; give 0 bytes or more")
        self.limit = limit
        self.held = 0
        self._tiles: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable) -> UInt8[np.ndarray, "height width 3"] | None:
        """The tile of a key, if it is cached."""
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def keep(self, key: Hashable, tile: UInt8[np.ndarray, "height width 3"]) -> None:
        """Add a tile, and drop the oldest while the limit is exceeded."""
        if tile.nbytes > self.limit or key in self._tiles:
            return
        self._tiles[key] = tile
        self.held += tile.nbytes
        while self.held > self.limit:
            self.held -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Drop all tiles."""
        self._tiles.clear()
        self.held = 0
