"""Settings of `regard slide`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .types import Checked

__all__ = ["SlideSettings"]


@dataclass(frozen=True, kw_only=True)
class SlideSettings(Checked):
    """Whole slides to tissue, patches, features, predictions and heatmaps; without slides, those that come along.

    Attributes:
        slides: files, folders or globs; a folder is searched through.
        out: folder of results. The same command again goes on where a run was stopped.
        encoder: what makes features of patches: a name of `regard list --kind encoders`, timm:NAME,
            open_clip:NAME@TAG, hf:ID, or a folder that `regard train` exported; "embedded" is a small one for
            demonstration.
        weights: file of the encoder's weights, where they cannot be downloaded.
        head: a trained head, or the output folder of `regard train` with bags, whose folds vote; may be given several
            times. By default "embedded" for the embedded encoder, and none for others.
        stages: which of tissue,grid,features,prediction,heatmap to run; what they need is run, too, unless it is done.
        mpp: microns per pixel of the patches; by default what the encoder was made for.
        patch: side of a patch in pixels at that resolution; by default what the encoder was made for.
        overlap: of neighbouring patches, as a share of their side, from 0 to below 1.
        min_tissue: share of a patch that has to be tissue, 0-1.
        align: move the grid to the tiles of the file, which are then read faster.
        tissue: how tissue is found: biopsy (keeps small pieces), resection, or another preset.
        segmenter: package.module:function that finds tissue, in place of the thresholds.
        annotations: folder of ID.geojson, or one file, with regions to look in, or to leave out
            (named Exclude, Ignore or Artifact).
        slide_mpp: microns per pixel at full resolution of slides that do not tell.
        table: CSV with the columns slide (file or id) and mpp, which goes before what the slides tell.
        reader: what reads slides: auto takes the fastest that gives the right pixels.
        also: also write features as .pt, as CLAM has them.
        precision: number format of the features in the files.
        top: patches with the highest attention that are shown.
        overlay: downsample of the pyramidal TIFF with the heatmap; 0 writes none, and by default its longer side has
            8192 pixels at most.
        pages: write a page for each slide to zoom into.
        page_px: longest side of what a page shows.
        batch_size: patches in one pass of the encoder; halved where memory does not suffice.
        threads: that decode a slide.
        device: of the encoder, cpu, cuda, cuda:1 ...; by default a GPU of CUDA if there is one.
        engine: local works on this machine; ray hands slides to the workers of a Ray cluster.
        workers: processes on this machine.
        shard: I/N works on part I (from 1) of N of the slides only, for array jobs.
        trust: run code that comes with an encoder or a head.
    """

    slides: list[str] = field(default_factory=list, metadata={"positional": True})
    out: str = "runs/slides"
    encoder: str = "embedded"
    weights: str | None = None
    head: list[str] = field(default_factory=list, metadata={"repeated": True})
    stages: str = "tissue,grid,features,prediction,heatmap"
    mpp: float | None = None
    patch: int | None = None
    overlap: float = 0.0
    min_tissue: float = 0.25
    align: bool = False
    tissue: str = "biopsy"
    segmenter: str | None = None
    annotations: str | None = None
    slide_mpp: float | None = None
    table: str | None = None
    reader: Literal["auto", "tiff", "openslide", "image"] = "auto"
    also: Literal["none", "pt"] = "none"
    precision: Literal["float32", "float16"] = "float32"
    top: int = 12
    overlay: int | None = None
    pages: bool = True
    page_px: int = 8192
    batch_size: int = 64
    threads: int = 1
    device: str | None = None
    engine: Literal["local", "ray"] = "local"
    workers: int = 1
    shard: str = "1/1"
    trust: bool = False
