"""Prefetching: an iterator that runs in a thread, with a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["ReadAhead"]

T = TypeVar("T")
_END = object()


class ReadAhead(Generic[T]):
    """Iterates over a source that a background thread reads.

    Args:
        source: iterated in the thread.
        waiting: largest number of items that are ready and not used yet.

    Example:
        >>> with ReadAhead([1, 2, 3], waiting=2) as items:
        ...     list(items)
        [1, 2, 3]
    """

    def __init__(self, source: Iterable[T], *, waiting: int) -> None:
        self._source = source
        self._ready: queue.Queue[Any] = queue.Queue(waiting)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._items()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()

    def _items(self) -> Iterator[T]:
        while (item := self._ready.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item

    def _read(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:  # for the other thread to raise
            self._put(_Raised(error))

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error
