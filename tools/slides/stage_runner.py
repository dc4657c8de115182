"""One slide on its way through the stages: what is done is kept, what is missing is made, and what fails is told."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from ...datasets.slides.feature_file import check_features, export_pt, read_features, write_features
from ...datasets.slides.geojson import read_regions, split_regions, write_regions
from ...datasets.slides.grid import Grid, build_grid
from ...datasets.slides.opening import open_slide
from ...datasets.slides.patch_file import write_grid
from ...datasets.slides.patches import PatchReader
from ...datasets.slides.slide import Slide
from ...datasets.slides.thumbnail import read_thumbnail
from ...datasets.slides.tissue import find_tissue
from ...whole_files import PARTIAL, write_atomically
from ..run.progress import progress
from ..settings import SlideSettings
from .cohort_plan import SlideTask
from .embedded import DEMONSTRATION
from .ensemble import Ensemble
from .heatmaps.files import write_heat_files
from .heatmaps.jpeg import encoded
from .heatmaps.score_map import Heat
from .locks import SlideLock
from .result import SlideResult, write_result
from .slide_models import Instruments
from .slide_page import write_slide_page
from .stage_cache import Ledger, file_digest, key_of, slide_fingerprint

__all__ = ["Batch", "SlideWork", "attempted", "note_failure"]

_THUMBNAIL_PX = 1024
#: Share of a slide from which marks on it are worth a word.
_MARKED = 0.01
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
        kinds = ("", *(f"_{name}" for name in ("absolute", "percentile", "preview")))
        ours = "|".join(re.escape(f".{self.task.id}{kind}") for kind in kinds)
        name = re.compile(rf"({ours})(\.\w+)?\.[0-9a-f]+{re.escape(PARTIAL)}(\.\w+)?")
        for folder in [*self.out.glob("*"), *self.out.glob("features_*/*")]:
            for path in folder.glob(f".*{PARTIAL}*"):
                if name.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _open(self) -> None:
        path = Path(self.task.path)
        slide: Slide = open_slide(path, reader=self.settings.reader, mpp=self.task.mpp)
        if slide.mpp is None and self.task.otherwise_mpp is not None:
            slide.close()
            slide = open_slide(path, reader=self.settings.reader, mpp=self.task.otherwise_mpp)
        known = {name: getattr(slide, name) for name in ("mpp", "objective", "vendor", "reader")}
        full = slide.levels[0]
        self.slide = slide
        self.result = replace(self.result, width=full.width, height=full.height, **known)
        self.slide_key = key_of(slide=slide_fingerprint(path), reader=slide.reader, mpp=slide.mpp)

    def _find_tissue(self) -> None:
        """Regions of tissue, from the file where it is there, also one that somebody has drawn in."""
        begun, given = time.monotonic(), self.task.annotations
        file = self._file("tissue", ".geojson")
        key = key_of(
            slide=self.slide_key,
            preset=self.settings.tissue,
            segmenter=self.settings.segmenter,
            annotations=file_digest(Path(given)) if given else None,
        )
        drawn = self.ledger.key("tissue") == key and self.ledger.changed("tissue") == [f"tissue/{file.name}"]
        if not (drawn and file.is_file()) and not self.ledger.done("tissue", key):
            image, _ = read_thumbnail(self.slide, _THUMBNAIL_PX)
            include, exclude = split_regions(read_regions(given)) if given else (None, None)
            found = find_tissue(
                self.slide,
                preset=self.settings.tissue,
                segmenter=self.instruments.segmenter,
                include=None if include is None or include.is_empty else include,
                exclude=exclude,
            )
            images = self._file("thumbnails", ".jpg"), self._file("tissue", ".jpg")
            write_atomically(images[0], encoded(image, "JPEG"))
            write_atomically(images[1], encoded(found.image(image), "JPEG"))
            write_regions(file, found.to_geojson(), namespace=self.task.id)
            value = {"share": found.share, "pen": found.pen, "edge": found.edge}
            self.ledger.note("tissue", key, [*images, file], seconds=time.monotonic() - begun, value=value)
            drawn = False
        inside, ignored = split_regions(read_regions(file))
        self.regions = inside.difference(ignored) if drawn else inside
        told = self.ledger.value("tissue")
        share = self.regions.area / max(1, self.slide.bounds[2] * self.slide.bounds[3]) if drawn else told["share"]
        self._warn("its tissue was drawn by hand", drawn)
        self._warn(f"{told['pen']:.0%} of it are marks of pens, which are left out", told["pen"] >= _MARKED)
        self._warn(f"{told['edge']:.0%} of it are dark edges, which are left out", told["edge"] >= _MARKED)
        self.result = replace(self.result, tissue=min(1.0, share))
        self._files(thumbnail=self._file("thumbnails", ".jpg"), tissue=file, tissue_image=self._file("tissue", ".jpg"))
        self.tissue_key = key_of(tissue=key, file=file_digest(file))

    def _lay_grid(self) -> None:
        begun, file = time.monotonic(), self._file("patches", ".h5")
        options = {name: getattr(self.settings, name) for name in ("overlap", "least_tissue", "align")}
        options |= {"patch": self.instruments.patch, "mpp": self.instruments.mpp}
        self.grid = build_grid(self.slide, self.regions, **options)
        self.grid_key = key_of(tissue=self.tissue_key, **options)
        if not self.ledger.done("grid", self.grid_key):
            write_grid(file, self.grid, slide=self.slide, name=self.task.id)
            self.ledger.note("grid", self.grid_key, [file], seconds=time.monotonic() - begun)
        self.result = replace(self.result, patches=len(self.grid))
        self._files(patches=file)

    def _has_features(self) -> bool:
        encoder, folder = self.instruments.encoder, self.out / self.instruments.encoder_folder
        assert encoder is not None
        self.features = folder / "h5_files" / f"{self.task.id}.h5"
        self.made: dict[str, Any] = {
            "grid": self.grid,
            "encoder": self.settings.encoder,
            "width": encoder.dim,
            "dtype": self.settings.precision,
            "made_from": {"weights": self.instruments.encoder_key, "slide": self.slide_key},
        }
        self.features_key = key_of(grid=self.grid_key, dtype=self.settings.precision, **self.made["made_from"])
        noted = self.ledger.key("features") == self.features_key
        return noted and check_features(self.features, **self.made) is None

    # In the thread that encodes.

    def encode(self, batches: Iterable[Batch]) -> None:
        """Write features of the patches as they come, unless they are there.

        Args:
            batches: what `read` gives; it has gone to its end, or has batches to give, when the first one is asked for.
        """
        try:
            batches = iter(batches)
            first = next(batches, None)
            if not self._to_encode or self.error is not None:
                return
            begun = time.monotonic()
            with progress(self.task.id, len(self.grid)) as step:
                encoded = self._encoded(batches if first is None else chain([first], batches), step)
                write_features(self.features, encoded, slide=self.slide, name=self.task.id, **self.made)
            value = {"damaged": len(self.patches.damaged)}
            took = time.monotonic() - begun
            self.ledger.note("features", self.features_key, unhashed=[self.features], seconds=took, value=value)
        except Exception as error:
            self.error = self.error or error

    def _encoded(
        self, batches: Iterable[Batch], step: Callable[[int], None]
    ) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n width"]]]:
        for places, pixels in batches:
            yield places, self._features_of(torch.from_numpy(pixels)).numpy()
            step(len(places))
        if self.error is not None:  # a file that ends here would pass for whole
            raise self.error

    @torch.inference_mode()
    def _features_of(self, pixels: UInt8[torch.Tensor, "n side side 3"]) -> Float[torch.Tensor, "n width"]:
        encoder, size = self.instruments.encoder, self.settings.batch_size
        assert encoder is not None
        while True:
            try:
                return torch.cat([encoder(part).cpu() for part in pixels.split(size)])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                torch.cuda.empty_cache()

    # In the thread that finishes.

    def finish(self) -> None:
        """Predict, draw, and write down what is known of the slide.

        Raises:
            OSError: nothing more can be written.
        """
        try:
            if self._tried:
                return
            try:
                if self.error is None:
                    self._conclude()
            except Exception as error:
                self.error = error
            if self.error is not None:
                self._tell_of_the_error()
            seconds = {name: took for name, took in self.ledger.seconds().items() if took}
            self.result = replace(self.result, seconds=seconds)
            write_result(self.out, self.result)
            self.ledger.note("run", self.token, seconds=0.0)
            sys.stderr.write(f"{self.task.id}: {self.result.status}{f', {r}' if (r := self.result.reason) else ''}\n")
        finally:
            with suppress(AttributeError):  # it was never opened
                self.slide.close()
            self._lock.release()

    def _conclude(self) -> None:
        stages, ensemble = self.instruments.stages, self.instruments.ensemble
        if "features" in stages:
            damaged = int(self.ledger.value("features")["damaged"])
            self._warn(f"{damaged} of {len(self.grid)} patches cannot be read and are left out", bool(damaged))
            self.result = replace(self.result, damaged=damaged)
            self._files(features=self.features)
            if self.settings.also == "pt":
                self._export()
        readable = "features" not in stages or len(self.grid) > self.result.damaged
        if "grid" in stages and not (len(self.grid) and readable):
            reason = "none of its patches can be read" if len(self.grid) else "no tissue was found"
            self.result = replace(self.result, status="empty", reason=reason)
            return
        if "prediction" in stages and ensemble is not None:
            self._predict(ensemble)
        self.result = replace(self.result, status="done")

    def _export(self) -> None:
        tensor = self.features.parent.with_name("pt_files") / f"{self.task.id}.pt"
        if not self.ledger.done("export", self.features_key):
            export_pt(self.features, tensor)
            self.ledger.note("export", self.features_key, unhashed=[tensor], seconds=0.0)
        self._files(tensor=tensor)

    def _predict(self, ensemble: Ensemble) -> None:
        """Prediction and heatmap; the vote is cheap and taken again where the heatmap has to be drawn."""
        key = key_of(features=self.features_key, heads=ensemble.fingerprint)
        drawing = {name: getattr(self.settings, name) for name in ("top", "overlay", "pages", "page_px")}
        heat_key = key_of(prediction=key, warnings=self.result.warnings, **drawing)
        draws = "heatmap" in self.instruments.stages and not self.ledger.done("heatmap", heat_key)
        if draws or not self.ledger.done("prediction", key):
            begun = time.monotonic()
            features, grid, _ = read_features(self.features)
            vote = ensemble.predict(torch.from_numpy(features))
            said = {
                "label": ensemble.label(vote),
                "probabilities": dict(zip(ensemble.classes, vote.probabilities.tolist(), strict=True)),
                "spread": dict(zip(ensemble.classes, vote.spread.tolist(), strict=True))
                if len(ensemble.heads) > 1
                else {},
            }
            file = self._file("predictions", ".json")
            write_atomically(file, json.dumps(said, indent=1))
            self.ledger.note("prediction", key, [file], seconds=time.monotonic() - begun, value=said)
        self.result = replace(self.result, **self.ledger.value("prediction"))
        self._files(prediction=self._file("predictions", ".json"))
        if "heatmap" not in self.instruments.stages:
            return
        if draws:
            self._draw(heat_key, grid, ensemble.heats(vote))
        self.result = replace(self.result, files={**self.result.files, **self.ledger.value("heatmap")})

    def _draw(self, key: str, grid: Grid, heats: Sequence[Heat]) -> None:
        begun, settings = time.monotonic(), self.settings
        files = write_heat_files(
            self.out,
            self.task.id,
            self.slide,
            grid,
            heats,
            regions=self.regions,
            top=settings.top,
            overlay=settings.overlay,
        )
        self.result = replace(self.result, status="done", files={**self.result.files, **files})  # as the page shows it
        kept = [self.out / name for name in files.values()]
        if settings.pages:
            files["page"] = self._write_page(grid, heats)
            kept.append(self.out / files["page"])
        self.ledger.note("heatmap", key, kept, seconds=time.monotonic() - begun, value=files)

    def _write_page(self, grid: Grid, heats: Sequence[Heat]) -> str:
        settings = self.settings
        options: dict[str, Any] = {"longest_px": settings.page_px, "top": settings.top}
        if "embedded" in (settings.encoder, *settings.head):
            options["notes"] = [DEMONSTRATION]
        return write_slide_page(self.out, self.result, self.slide, grid, heats, regions=self.regions, **options)

    def _tell_of_the_error(self) -> None:
        error = self.error
        assert error is not None
        if isinstance(error, OSError) and error.errno in _FATAL:
            raise error
        reason = str(error) or type(error).__name__
        if not isinstance(error, ValueError | OSError | ModuleNotFoundError):
            file = self._file("errors", ".txt")
            write_atomically(file, "".join(traceback.format_exception(error)))
            reason = f"{type(error).__name__}: {reason}; see {file.relative_to(self.out)}"
        self.result = replace(self.result, status="failed", reason=reason)

    def _file(self, folder: str, suffix: str) -> Path:
        return self.out / folder / f"{self.task.id}{suffix}"

    def _files(self, **files: Path) -> None:
        """Note files in the result."""
        named = {name: file.relative_to(self.out).as_posix() for name, file in files.items()}
        self.result = replace(self.result, files={**self.result.files, **named})

    def _warn(self, text: str, applies: bool) -> None:
        if applies:
            self.result = replace(self.result, warnings=(*self.result.warnings, text))


def attempted(settings: SlideSettings, task: SlideTask, token: str) -> bool:
    """Whether a run has tried a slide, with whatever result."""
    return _ledger(Path(settings.out), task).done("run", token)


def note_failure(settings: SlideSettings, task: SlideTask, token: str, reason: str) -> None:
    """Write down that a slide failed in a process that cannot tell by itself."""
    write_result(Path(settings.out), SlideResult(id=task.id, path=task.path, status="failed", reason=reason))
    _ledger(Path(settings.out), task).note("run", token, seconds=0.0)


def _ledger(out: Path, task: SlideTask) -> Ledger:
    return Ledger(out / "stages" / f"{task.id}.json", out)
