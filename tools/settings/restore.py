"""Settings of `regard restore`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

__all__ = ["RestoreSettings"]


@dataclass(frozen=True)
class RestoreSettings:
    """Enlarge or clean images of any size, tile by tile, within a limit of memory.

    Attributes:
        paths: images, folders (with all their folders) or globs; the last one is where to: a file for a single
            image, otherwise a folder, in which finished images are kept when the command runs again.
        model: embedded; a folder that `regard train` or `regard convert` made; a file of weights of the authors, or its
            URL; or a model of `regard list` whose weights are published, e.g. hat_x4.real_gan_sharper.
        scale: how many times as wide and high the result is; null is what the model has, 2 for embedded.
        memory: most memory the whole process may take, e.g. 4GB or 800MB.
        tile: side of a tile in pixels of the image, rounded down to whole windows; auto is the largest that fits into
            the memory.
        overlap: pixels that neighbouring tiles share, rounded up to whole windows; null is four windows.
        format: of the results in a folder: png is written line by line; the others are put together in memory.
        quality: of jpg and webp, 1-100.
        overwrite: restore also what is there already.
        device: cpu, cuda, cuda:1 ...; by default a GPU of CUDA if there is one.
        dtype: type of the weights; float16 is missing since HAT overflows in it.
        threads: of the CPU; null is what PyTorch takes.
    """

    paths: list[str] = field(metadata={"words": "images, folders or globs, and last where to"})
    _: KW_ONLY
    model: str = "embedded"
    scale: int | None = None
    memory: str = "4GB"
    tile: int | Literal["auto"] = "auto"
    overlap: int | None = None
    format: Literal["png", "jpg", "webp", "tiff"] = "png"
    quality: int = 95
    overwrite: bool = False
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = None
