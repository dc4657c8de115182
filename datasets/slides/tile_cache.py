"""Decoded tiles that were used last, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from jaxtyping import UInt8

__all__ = ["TileCache"]


class TileCache:
    """Keeps what was used last and forgets the rest.

    Args:
        limit: bytes of pixels that are kept at most; 0 keeps nothing.

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
            raise ValueError(f"a cache keeps at least 0 bytes, not {limit}")
        self.limit = limit
        self.held = 0
        self._tiles: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable) -> UInt8[np.ndarray, "height width 3"] | None:
        """The tile of this key, if it is still there."""
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def keep(self, key: Hashable, tile: UInt8[np.ndarray, "height width 3"]) -> None:
        """Add a tile; the oldest go as far as needed."""
        if tile.nbytes > self.limit or key in self._tiles:
            return
        self._tiles[key] = tile
        self.held += tile.nbytes
        while self.held > self.limit:
            self.held -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all tiles."""
        self._tiles.clear()
        self.held = 0
