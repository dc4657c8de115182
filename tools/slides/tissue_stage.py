"""The first stage of a slide: its regions of tissue, with a thumbnail and an image that shows them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...datasets.slides.geojson import read_regions, split_regions, write_regions
from ...datasets.slides.segmenter import Segmenter
from ...datasets.slides.slide import Slide
from ...datasets.slides.thumbnail import read_thumbnail
from ...datasets.slides.tissue import find_tissue
from ...whole_files import write_atomically
from ..settings import SlideSettings
from .heatmaps.jpeg import encode_image
from .slide_record import SlideRecord
from .stage_cache import cache_key, file_digest

__all__ = ["segment_tissue"]

_THUMBNAIL_PX = 1024
#: Share of a slide from which marks on it are worth a warning.
_MARKED = 0.01


def segment_tissue(
    record: SlideRecord, slide: Slide, slide_key: str, settings: SlideSettings, segmenter: Segmenter | None
) -> tuple[Any, str]:
    """Find the tissue of a slide, or read the file that holds it; also one that somebody edited.

    Args:
        record: of the slide; gets files, warnings and the share of tissue.
        slide: that is read.
        slide_key: changes with the slide.
        settings: of the run.
        segmenter: finds tissue; None leaves it to thresholds.

    Returns:
        The regions, a shapely geometry in pixels of full resolution, and a key that changes with them.
    """
    begun, cache, annotations = time.monotonic(), record.cache, record.task.annotations
    file = record.file("tissue", ".geojson")
    thumbnail, overlay = record.file("thumbnails", ".jpg"), record.file("tissue", ".jpg")
    key = cache_key(
        slide=slide_key,
        preset=settings.tissue,
        segmenter=settings.segmenter,
        annotations=file_digest(Path(annotations)) if annotations else None,
    )
    edited = cache.key("tissue") == key and cache.changed("tissue") == [f"tissue/{file.name}"] and file.is_file()
    if not edited and not cache.done("tissue", key):
        image, _ = read_thumbnail(slide, _THUMBNAIL_PX)
        include, exclude = split_regions(read_regions(annotations)) if annotations else (None, None)
        found = find_tissue(
            slide,
            preset=settings.tissue,
            segmenter=segmenter,
            include=None if include is None or include.is_empty else include,
            exclude=exclude,
        )
        write_atomically(thumbnail, encode_image(image, "JPEG"))
        write_atomically(overlay, encode_image(found.image(image), "JPEG"))
        write_regions(file, found.to_geojson(), namespace=record.task.id)
        value = {"share": found.share, "pen": found.pen, "edge": found.edge}
        cache.store("tissue", key, [thumbnail, overlay, file], seconds=time.monotonic() - begun, value=value)
    regions, ignored = split_regions(read_regions(file))
    found_before = cache.value("tissue")
    share = found_before["share"]
    if edited:
        regions = regions.difference(ignored)
        share = regions.area / max(1, slide.bounds[2] * slide.bounds[3])
        record.warn("its tissue was edited by hand")
    if found_before["pen"] >= _MARKED:
        record.warn(f"{found_before['pen']:.0%} of it are pen marks, which are excluded")
    if found_before["edge"] >= _MARKED:
        record.warn(f"{found_before['edge']:.0%} of it are dark edges, which are excluded")
    record.update(tissue=min(1.0, share))
    record.add_files(thumbnail=thumbnail, tissue=file, tissue_image=overlay)
    return regions, cache_key(tissue=key, file=file_digest(file))
