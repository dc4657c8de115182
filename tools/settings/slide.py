"""Settings of `regard slide`."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ...class_names import nearest
from .resuming import FREE
from .types import (
    Checked,
    ExistingFile,
    ExistingPath,
    Fraction,
    NonNegativeInt,
    Parsed,
    PositiveInt,
    ShardText,
    Within,
)

__all__ = ["STAGES", "SlideSettings", "wanted_stages"]

#: Each needs the results of those before it.
STAGES = ("tissue", "grid", "features", "prediction", "heatmap")


def wanted_stages(text: str) -> tuple[str, ...]:
    """The stages up to the last that is named.

    Raises:
        ValueError: there is no stage of such a name.

    Example:
        >>> wanted_stages("grid")
        ('tissue', 'grid')
    """
    named = [name.strip() for name in text.strip("[]").split(",") if name.strip()]
    for name in named:
        if name not in STAGES:
            raise ValueError(
                f"--stages: no stage is called {name!r}; {nearest(name, STAGES)}Known: {', '.join(STAGES)}"
            )
    if not named:
        raise ValueError(f"--stages names no stage; give some of {','.join(STAGES)}")
    return STAGES[: max(map(STAGES.index, named)) + 1]


Mpp = Annotated[float, Within(0.01, 100)]


@dataclass(frozen=True, kw_only=True)
class SlideSettings(Checked):
    """Find tissue in whole slides, encode patches, predict and draw heatmaps.

    Attributes:
        slides: files, folders or globs; by default bundled slides.
        stages: some of tissue,grid,features,prediction,heatmap; earlier stages run where they are needed.
        out: folder of results; the same command resumes.
        annotations: ID.geojson, or a folder of these, with regions to use, or named Exclude, Ignore or Artifact.
        table: CSV with columns slide (file or ID) and mpp.
        slide_mpp: microns per pixel of slides without metadata.
        reader: auto picks the fastest with the right pixels.
        tissue: preset: biopsy, resection or another.
        segmenter: package.module:function to find tissue with.
        mpp: microns per pixel of patches; by default the encoder's.
        patch: side of a patch in pixels; by default the encoder's.
        overlap: overlap of patches, as a fraction of the side from 0 to below 1.
        min_tissue: smallest fraction of tissue in a patch, 0-1.
        align: align patches with the tiles of the file, which is faster.
        encoder: name (`regard list`), timm:NAME, open_clip:NAME@TAG, hf:ID, or an exported folder.
        weights: file of the encoder's weights.
        head: trained head, or the --out of `regard train mil`, whose folds vote; may be repeated. By default none, or
            embedded for the embedded encoder.
        precision: number format of saved features.
        also: also save features as .pt, as CLAM does.
        trust: run code of an encoder or a head.
        top: number of top-attention patches shown.
        overlay: downsample of the heatmap TIFF; 0 writes none.
        pages: write a zoomable page for each slide.
        page_px: longest side shown on a page.
        device: cpu, cuda, cuda:N or mps; by default CUDA if available.
        batch_size: patches in one pass of the encoder.
        threads: threads that decode a slide.
        workers: processes on this machine.
        engine: processes of this machine, or of a Ray cluster.
        shard: I/N processes part I (from 1) of N only.
    """

    HEADINGS: ClassVar[dict[str, str]] = {
        "stages": "run",
        "annotations": "slides",
        "tissue": "tissue and patches",
        "encoder": "models",
        "top": "heatmaps and pages",
        "device": "speed",
    }

    slides: list[str] = field(default_factory=list, metadata=FREE | {"positional": True})
    stages: Annotated[str, Parsed(wanted_stages)] = field(default=",".join(STAGES), metadata=FREE)
    out: str = field(default="runs/slides", metadata=FREE)
    annotations: ExistingPath | None = field(default=None, metadata=FREE)
    table: ExistingFile | None = field(default=None, metadata=FREE)
    slide_mpp: Mpp | None = None
    reader: Literal["auto", "tiff", "openslide", "image"] = "auto"
    tissue: str = "biopsy"
    segmenter: str | None = None
    mpp: Mpp | None = None
    patch: Annotated[int, Within(16, 4096)] | None = None
    overlap: Annotated[float, Within(0, 1, open_high=True)] = 0.0
    min_tissue: Fraction = 0.25
    align: bool = False
    encoder: str = "embedded"
    weights: ExistingFile | None = None
    head: list[str] = field(default_factory=list, metadata=FREE | {"repeated": True})
    precision: Literal["float32", "float16"] = "float32"
    also: Literal["none", "pt"] = field(default="none", metadata=FREE)
    trust: bool = field(default=False, metadata=FREE)
    top: NonNegativeInt = field(default=12, metadata=FREE)
    overlay: NonNegativeInt | None = field(default=None, metadata=FREE)
    pages: bool = field(default=True, metadata=FREE)
    page_px: Annotated[int, Within(512)] = field(default=8192, metadata=FREE)
    device: str | None = field(default=None, metadata=FREE)
    batch_size: PositiveInt = field(default=64, metadata=FREE)
    threads: PositiveInt = field(default=1, metadata=FREE)
    workers: PositiveInt = field(default=1, metadata=FREE)
    engine: Literal["local", "ray"] = field(default="local", metadata=FREE)
    shard: ShardText = field(default="1/1", metadata=FREE)

    def check_together(self) -> None:
        """Slides exist, and a Ray cluster divides them itself."""
        for slide in self.slides:
            if not Path(slide).exists() and not glob.has_magic(slide):
                raise ValueError(f"there is no slide or folder {slide}; give files, folders or globs")
        if self.engine == "ray" and self.shard != "1/1":
            raise ValueError("--engine ray divides the slides itself; omit --shard or --engine")
        if self.engine == "ray" and self.workers != 1:
            raise ValueError("--workers are processes of --engine local; omit --workers or --engine")
