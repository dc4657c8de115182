"""One slide on its way through the stages: what is done is kept, what is missing is made, and what fails is told."""

from __future__ import annotations

import errno
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from ...datasets.slides import PatchReader, Slide, build_grid, find_tissue, open_slide, thumbnail
from ...datasets.slides.feature_file import check_features, export_pt, read_features, write_features
from ...datasets.slides.geojson import read_regions
from ...datasets.slides.patch_file import write_grid
from ...whole_files import PARTIAL, write_atomically
from ..progress import progress
from ..settings import SlideSettings
from .heat import Heat
from .heat_files import write_heat_files
from .instruments import Instruments
from .ledger import Ledger, file_digest, key_of, slide_fingerprint
from .locks import SlideLock
from .plan import SlideTask
from .result import SlideResult, write_result
from .slide_page import write_slide_page

__all__ = ["Batch", "SlideWork", "attempted", "note_failure"]

_THUMBNAIL_PX = 1024
#: Errors of a file system after which no further slide could be written.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

#: Places in the grid, and the pixels there.
Batch = tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, "n side side 3"]]


class SlideWork:
    """A slide, what is known of it by now, and what is still to be done.

    `read`, `encode` and `finish` may run in three threads, one after the other for a slide.

    Args:
        task: the slide.
        settings: of the run.
        instruments: encoder and heads.
        token: name of the run; a slide that was tried under it is left alone.
    """

    def __init__(self, task: SlideTask, settings: SlideSettings, instruments: Instruments, token: str) -> None:
        self.task, self.settings, self.instruments, self.token = task, settings, instruments, token
        self.out = Path(settings.out)
        self.result = SlideResult(id=task.id, path=task.path)
        self.error: Exception | None = None
        self._tried = self._to_encode = False
        self._lock = SlideLock(self.out / "locks" / f"{task.id}.lock")

    def take(self, *, wait: bool) -> bool:
        """Lock the slide; whether it is ours."""
        return self._lock.take(wait=wait)

    # In the thread that reads.

    def read(self) -> Iterator[Batch]:
        """Open the slide, find tissue, lay the grid, and read the patches that are to be encoded."""
        try:
            self.ledger = _ledger(self.out, self.task)
            self._tried = self.ledger.done("run", self.token)
            if self._tried:
                return
            self._clear()
            self._open()
            self._find_tissue()
            if "grid" in self.instruments.stages:
                self._lay_grid()
            self._to_encode = "features" in self.instruments.stages and not self._has_features()
            if self._to_encode:
                self.patches = PatchReader(
                    self.slide, self.grid, batch=self.settings.batch_size, threads=self.settings.threads
                )
                for batch in self.patches:
                    if self.error is not None:
                        return
                    yield batch
        except Exception as error:
            self.error = error  # `finish` tells of it

    def _clear(self) -> None:
        """Remove what a killed run left unfinished; the lock says that nobody is at it."""
        for folder in ("thumbnails", "tissue", "patches", "slides", "stages", "heatmaps", "top"):
            for path in (self.out / folder).glob(f".*{PARTIAL}*"):
                if path.name.startswith(f".{self.task.id}"):
                    path.unlink(missing_ok=True)

    def _open(self) -> None:
        path = Path(self.task.path)
        slide: Slide = open_slide(path, reader=self.settings.reader, mpp=self.task.mpp)
        if slide.mpp is None and self.task.otherwise_mpp is not None:
            slide = open_slide(path, reader=self.settings.reader, mpp=self.task.otherwise_mpp)
        known = {name: getattr(slide, name) for name in ("mpp", "objective", "vendor", "reader")}
        full = slide.levels[0]
        self.slide = slide
        self.result = replace(self.result, width=full.width, height=full.height, **known)
        self.slide_key = key_of(slide=slide_fingerprint(path), reader=slide.reader, mpp=slide.mpp)

    def _find_tissue(self) -> None:
        """Regions of tissue, from the file where it is there, also one that somebody has drawn in."""
        begun, given = time.monotonic(), self.task.annotations
        file = self.out / "tissue" / f"{self.task.id}.geojson"
        key = key_of(
            slide=self.slide_key,
            preset=self.settings.tissue,
            segmenter=self.settings.segmenter,
            annotations=file_digest(Path(given)) if given else None,
        )
        changed = self.ledger.changed("tissue")
        drawn = self.ledger.key("tissue") == key and changed == [f"tissue/{file.name}"] and file.is_file()
        if not drawn and not self.ledger.done("tissue", key):
            picture, downsample = thumbnail(self.slide, _THUMBNAIL_PX)
            found = find_tissue(self.slide, preset=self.settings.tissue, segmenter=self.settings.segmenter)
            raise NotImplementedError
        self.regions = read_regions(file)
