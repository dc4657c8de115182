"""The last stages of a slide: the prediction of the heads, heatmaps, and a page to zoom into."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...datasets.slides.feature_file import read_features
from ...datasets.slides.grid import Grid
from ...datasets.slides.slide import Slide
from ...whole_files import write_atomically
from ..settings import SlideSettings
from .embedded import DEMONSTRATION
from .ensemble import Ensemble
from .heatmaps.files import write_heatmaps
from .heatmaps.score_map import ScoreMap
from .slide_page import write_slide_page
from .slide_record import SlideRecord
from .stage_cache import cache_key

__all__ = ["predict_slide"]


def predict_slide(
    record: SlideRecord,
    slide: Slide,
    regions: Any,
    features: tuple[Path, str],
    ensemble: Ensemble,
    settings: SlideSettings,
    *,
    draw: bool,
) -> None:
    """Predict a slide from its features and draw the heatmaps, unless both are there.

    The prediction is cheap, and computed again where a heatmap has to be drawn.

    Args:
        record: of the slide; gets label, probabilities and files.
        slide: that is drawn.
        regions: the tissue, a shapely geometry in pixels of full resolution.
        features: file of the features, and a key that changes with them.
        ensemble: heads that vote.
        settings: of the run.
        draw: whether heatmaps are wanted.
    """
    cache, file = record.cache, record.file("predictions", ".json")
    key = cache_key(features=features[1], heads=ensemble.fingerprint)
    drawing = {name: getattr(settings, name) for name in ("top", "overlay", "pages", "page_px")}
    heatmap_key = cache_key(prediction=key, warnings=record.result.warnings, **drawing)
    draws = draw and not cache.done("heatmap", heatmap_key)
    score_maps: list[ScoreMap] = []
    grid: Grid | None = None
    if draws or not cache.done("prediction", key):
        begun = time.monotonic()
        values, grid, _ = read_features(features[0])
        vote = ensemble.predict(torch.from_numpy(values))
        score_maps = ensemble.score_maps(vote)
        found = {
            "label": ensemble.label(vote),
            "probabilities": dict(zip(ensemble.classes, vote.probabilities.tolist(), strict=True)),
            "spread": dict(zip(ensemble.classes, vote.spread.tolist(), strict=True)) if len(ensemble.heads) > 1 else {},
        }
        write_atomically(file, json.dumps(found, indent=1))
        cache.store("prediction", key, [file], seconds=time.monotonic() - begun, value=found)
    record.update(**cache.value("prediction"))
    record.add_files(prediction=file)
    if draws:
        assert grid is not None
        _draw(record, slide, regions, grid, score_maps, settings, heatmap_key)
    if draw:
        record.add_files(**cache.value("heatmap"))


def _draw(
    record: SlideRecord,
    slide: Slide,
    regions: Any,
    grid: Grid,
    score_maps: Sequence[ScoreMap],
    settings: SlideSettings,
    key: str,
) -> None:
    begun, out = time.monotonic(), record.out
    files = write_heatmaps(
        out,
        record.task.id,
        slide,
        grid,
        score_maps,
        regions=regions,
        top=settings.top,
        overlay=settings.overlay,
    )
    record.update(status="done")  # as the page shows it
    record.add_files(**files)
    hashed = [out / name for name in files.values()]
    if settings.pages:
        shows_only = "embedded" in (settings.encoder, *settings.head)
        files["page"] = write_slide_page(
            out,
            record.result,
            slide,
            grid,
            score_maps,
            regions=regions,
            max_px=settings.page_px,
            top=settings.top,
            notes=[DEMONSTRATION] if shows_only else [],
        )
        hashed.append(out / files["page"])
    record.cache.store("heatmap", key, hashed, seconds=time.monotonic() - begun, value=files)
