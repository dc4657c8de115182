"""Decoded images as files: a crop of a large image is then read without decoding the rest."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np

from .image_pairs import SourceImage

__all__ = ["cached"]


def cached(image: SourceImage, folder: str | Path) -> SourceImage:
    """The same image, whose pixels are decoded once into a file of `folder` and mapped into memory from then on.

    An image that has changed on disk is decoded anew. It takes 3 or 6 bytes a pixel; the folder may be deleted at any
    time. Several processes may fill it together: a file is there whole or not at all.

    Args:
        image: the image; one without a file stays as it is.
        folder: is made when the first image is read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     kept = cached(SourceImage("a", lambda: np.ones((2, 2, 3), np.uint8), Path(place)), f"{place}/cache")
        ...     first, second = kept.read(), kept.read()
        >>> int(second.sum()), type(second).__name__
        (12, 'memmap')
    """
    if image.path is None:
        return image
    state = image.path.stat()
    stamp = f"{image.path.resolve()} {state.st_mtime_ns} {state.st_size}"
    path = Path(folder, hashlib.sha256(stamp.encode()).hexdigest()[:24] + ".npy")

    def read() -> np.ndarray:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            with partial.open("wb") as file:
                np.save(file, image.read(), allow_pickle=False)
            partial.replace(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    return dataclasses.replace(image, read=read)
