"""Settings of `regard restore`."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from .resuming import FREE
from .types import Checked, MemorySize, NonNegativeInt, PositiveInt, Within

__all__ = ["RestoreSettings"]


@dataclass(frozen=True, kw_only=True)
class RestoreSettings(Checked):
    """Enlarge or clean images of any size, tile by tile, within a memory limit.

    Attributes:
        paths: images, folders (searched recursively) or globs; the last path is the result: a file for a single image,
            otherwise a folder. Results that exist are kept.
        model: embedded; a folder of `regard train` or `regard convert`; the authors' weights, a file or URL; or a model
            of `regard list`, such as hat_x4.real_gan_sharper.
        scale: factor of width and height; by default the model's own, 2 for embedded.
        memory: memory limit of the whole process, such as 4GB or 800MB.
        tile: side of a tile in input pixels, rounded down to whole windows; auto is the largest that fits in memory.
        overlap: pixels that neighbouring tiles share, rounded up to whole windows; by default four windows.
        threads: CPU threads; by default those of PyTorch.
        device: cpu, cuda, cuda:N or mps; by default CUDA if available.
        dtype: type of the weights; HAT overflows in float16.
        format: format of results in a folder; png is written line by line, the others need the whole image in memory.
        quality: quality of jpg and webp, 1-100.
        overwrite: restore images again whose results exist.
    """

    HEADINGS: ClassVar[dict[str, str]] = {
        "model": "model",
        "memory": "memory and speed",
        "format": "results",
    }

    paths: list[str] = field(metadata=FREE | {"positional": True})
    model: str = "embedded"
    scale: PositiveInt | None = None
    memory: MemorySize = field(default="4GB", metadata=FREE)
    tile: PositiveInt | Literal["auto"] = "auto"
    overlap: NonNegativeInt | None = None
    threads: PositiveInt | None = field(default=None, metadata=FREE)
    device: str | None = field(default=None, metadata=FREE)
    dtype: Literal["float32", "bfloat16"] = "float32"
    format: Literal["png", "jpg", "webp", "tiff"] = "png"
    quality: Annotated[int, Within(1, 100)] = 95
    overwrite: bool = field(default=False, metadata=FREE)

    def check_together(self) -> None:
        """Sources exist, and the last path is where results go."""
        if len(self.paths) < 2:
            raise ValueError(f"only {', '.join(self.paths) or 'nothing'} is given; give images and a result: IN OUT")
        for source in self.paths[:-1]:
            if not Path(source).exists() and not glob.has_magic(source):
                raise ValueError(f"there is no image or folder {source}; give images, folders or globs, and a result")
