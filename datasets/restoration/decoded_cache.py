"""Cache decoded images as files, so that a crop of a large image is read without decoding the rest."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from ...whole_files import whole_file
from .image_pairs import SourceImage

__all__ = ["cached"]


def cached(image: SourceImage, folder: str | Path) -> SourceImage:
    """Return the same image, whose pixels are decoded once into a file of `folder` and then memory-mapped.

    An image that has changed on disk is decoded again. It needs 3 or 6 bytes a pixel; the folder may be deleted at any
    time. Several processes may fill it together: files are complete or absent.

    Args:
        image: the image; one that is not a file is returned unchanged.
        folder: created when the first image is read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image = cached(SourceImage("a", lambda: np.ones((2, 2, 3), np.uint8), Path(folder)), f"{folder}/cache")
        ...     first, second = image.read(), image.read()
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
            with whole_file(path) as partial:
                np.save(partial, image.read(), allow_pickle=False)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    return dataclasses.replace(image, read=read)
