"""One slide on its way through the stages: a stage that is done is kept, and a slide that fails has a reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from ...datasets.slides.feature_file import check_features, export_pt, write_features
from ...datasets.slides.grid import build_grid
from ...datasets.slides.opening import open_slide
from ...datasets.slides.patch_file import write_grid
from ...datasets.slides.patches import PatchReader
from ...datasets.slides.slide import Slide
from ...file_lock import ProcessLock
from ..run.progress import progress
from ..settings import SlideSettings
from .cohort_plan import SlideTask
from .prediction_stage import predict_slide
from .slide_models import SlideModels
from .slide_record import SlideRecord
from .stage_cache import cache_key, slide_fingerprint
from .tissue_stage import segment_tissue

__all__ = ["Batch", "SlideRunner"]

#: Indices of patches in the grid, and their pixels.
Batch = tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, "n side side 3"]]


class SlideRunner:
    """Runs the stages of one slide.

    `read`, `encode` and `finish` may run in three threads, one after the other for a slide.

    Args:
        task: the slide.
        settings: of the run.
        models: encoder and heads.
        run_id: identity of the run; a slide that was attempted under it is left alone.
    """

    def __init__(self, task: SlideTask, settings: SlideSettings, models: SlideModels, run_id: str) -> None:
        self.task, self.settings, self.models, self.run_id = task, settings, models, run_id
        self.out = Path(settings.out)
        self.error: Exception | None = None
        self._attempted = self._encodes = False
        self._lock = ProcessLock(self.out / "locks" / f"{task.id}.lock")

    def acquire(self, *, wait: bool) -> bool:
        """Lock the slide; whether this process has it."""
        return self._lock.acquire(wait=wait)

    # In the thread that reads.

    def read(self) -> Iterator[Batch]:
        """Open the slide, find tissue, lay the grid, and read the patches that are to be encoded."""
        try:
            self.record = SlideRecord(self.task, self.out)
            self._attempted = self.record.was_attempted(self.run_id)
            if self._attempted:
                return
            self.record.remove_partial_files()
            self._open()
            self.regions, self.tissue_key = segment_tissue(
                self.record, self.slide, self.slide_key, self.settings, self.models.segmenter
            )
            if "grid" in self.models.stages:
                self._lay_grid()
            self._encodes = "features" in self.models.stages and not self._has_features()
            if self._encodes:
                self.patches = PatchReader(
                    self.slide, self.grid, batch=self.settings.batch_size, threads=self.settings.threads
                )
                for batch in self.patches:
                    if self.error is not None:
                        return
                    yield batch
        except Exception as error:
            self.error = error  # `finish` records it

    def _open(self) -> None:
        path, reader = Path(self.task.path), self.settings.reader
        slide: Slide = open_slide(path, reader=reader, mpp=self.task.mpp)
        if slide.mpp is None and self.task.fallback_mpp is not None:
            slide.close()
            slide = open_slide(path, reader=reader, mpp=self.task.fallback_mpp)
        self.slide = slide
        self.slide_key = cache_key(slide=slide_fingerprint(path), reader=slide.reader, mpp=slide.mpp)
        known = {name: getattr(slide, name) for name in ("mpp", "objective", "vendor", "reader")}
        self.record.update(width=slide.levels[0].width, height=slide.levels[0].height, **known)

    def _lay_grid(self) -> None:
        begun, file = time.monotonic(), self.record.file("patches", ".h5")
        options: dict[str, Any] = {"overlap": self.settings.overlap, "min_tissue": self.settings.min_tissue}
        options["align"] = self.settings.align
        options |= {"patch": self.models.patch, "mpp": self.models.mpp}
        self.grid = build_grid(self.slide, self.regions, **options)
        self.grid_key = cache_key(tissue=self.tissue_key, **options)
        if not self.record.cache.done("grid", self.grid_key):
            write_grid(file, self.grid, slide=self.slide, name=self.task.id)
            self.record.cache.store("grid", self.grid_key, [file], seconds=time.monotonic() - begun)
        self.record.update(patches=len(self.grid))
        self.record.add_files(patches=file)

    def _has_features(self) -> bool:
        encoder, folder = self.models.encoder, self.out / self.models.encoder_folder
        assert encoder is not None
        self.features = folder / "h5_files" / f"{self.task.id}.h5"
        self.made: dict[str, Any] = {
            "grid": self.grid,
            "encoder": self.settings.encoder,
            "width": encoder.dim,
            "dtype": self.settings.precision,
            "made_from": {"weights": self.models.encoder_key, "slide": self.slide_key},
        }
        self.features_key = cache_key(grid=self.grid_key, dtype=self.settings.precision, **self.made["made_from"])
        stored = self.record.cache.key("features") == self.features_key
        return stored and check_features(self.features, **self.made) is None

    # In the thread that encodes.

    def encode(self, batches: Iterable[Batch]) -> None:
        """Write features of the patches as they come, unless they are there.

        Args:
            batches: what `read` gives; it has gone to its end, or has batches to give, when the first one is requested.
        """
        try:
            batches = iter(batches)
            first = next(batches, None)
            if not self._encodes or self.error is not None:
                return
            begun = time.monotonic()
            with progress(self.task.id, len(self.grid)) as step:
                chunks = self._encoded(batches if first is None else chain([first], batches), step)
                write_features(self.features, chunks, slide=self.slide, name=self.task.id, **self.made)
            self.record.cache.store(
                "features",
                self.features_key,
                unhashed=[self.features],
                seconds=time.monotonic() - begun,
                value={"damaged": len(self.patches.damaged)},
            )
        except Exception as error:
            self.error = self.error or error

    def _encoded(
        self, batches: Iterable[Batch], step: Callable[[int], None]
    ) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n width"]]]:
        for indices, pixels in batches:
            yield indices, self._features_of(torch.from_numpy(pixels)).numpy()
            step(len(indices))
        if self.error is not None:  # a file that ends here would pass for whole
            raise self.error

    @torch.inference_mode()
    def _features_of(self, pixels: UInt8[torch.Tensor, "n side side 3"]) -> Float[torch.Tensor, "n width"]:
        encoder, size = self.models.encoder, self.settings.batch_size
        assert encoder is not None
        while True:
            try:
                return torch.cat([encoder(chunk).cpu() for chunk in pixels.split(size)])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                torch.cuda.empty_cache()

    # In the thread that finishes.

    def finish(self) -> None:
        """Predict, draw, and write the result of the slide.

        Raises:
            OSError: nothing more can be written.
        """
        try:
            if self._attempted:
                return
            try:
                if self.error is None:
                    self._conclude()
            except Exception as error:
                self.error = error
            if self.error is not None:
                self.record.fail(self.error)
            self.record.save(self.run_id)
        finally:
            with suppress(AttributeError):  # it was never opened
                self.slide.close()
            self._lock.release()

    def _conclude(self) -> None:
        stages, ensemble, record = self.models.stages, self.models.ensemble, self.record
        damaged = 0
        if "features" in stages:
            damaged = int(record.cache.value("features")["damaged"])
            if damaged:
                record.warn(f"{damaged} of {len(self.grid)} patches cannot be read and are skipped")
            record.update(damaged=damaged)
            record.add_files(features=self.features)
            if self.settings.also == "pt":
                self._export()
        if "grid" in stages and len(self.grid) <= damaged:
            reason = "none of its patches can be read" if len(self.grid) else "no tissue was found"
            record.update(status="empty", reason=reason)
            return
        if "prediction" in stages and ensemble is not None:
            features, draw = (self.features, self.features_key), "heatmap" in stages
            predict_slide(record, self.slide, self.regions, features, ensemble, self.settings, draw=draw)
        record.update(status="done")

    def _export(self) -> None:
        tensor = self.features.parent.with_name("pt_files") / f"{self.task.id}.pt"
        if not self.record.cache.done("export", self.features_key):
            export_pt(self.features, tensor)
            self.record.cache.store("export", self.features_key, unhashed=[tensor], seconds=0.0)
        self.record.add_files(tensor=tensor)
