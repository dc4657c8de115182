"""`regard slide`: whole slides to tissue, grid, features, prediction and heatmap.

The output folder holds settings.yaml, run.json (versions), summary.json, summary.csv and report.html; and for each
slide ID what its stages made: thumbnails/ID.jpg, tissue/ID.geojson and .jpg, patches/ID.h5,
features_ENCODER/h5_files/ID.h5 (and pt_files/ID.pt), predictions/ID.json, heatmaps/, top/ID.jpg, pages/ID/,
slides/ID.json (its result) and stages/ID.json (its stage cache). A stage runs again if its inputs or its files have
changed; but tissue/ID.geojson may be edited, and is then used as it is.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from ..run.run_folder import open_run
from ..run.shards import parse_shard, part_of
from ..settings import SlideSettings
from .cohort_plan import plan_slides
from .embedded import embedded_slides
from .parallel import process_slides
from .summary import finish, is_well

__all__ = ["run"]


def run(settings: SlideSettings) -> int:
    """Process the slides, or resume a stopped run; then write the summary and the report.

    Args:
        settings: see `SlideSettings`.

    Returns:
        0, or 1 when a slide failed, has no tissue, or has parts that cannot be read.

    Raises:
        ValueError: a setting is wrong, no slide is there, or the folder belongs to a run with other settings.
        OSError: the output folder cannot be written, or the disk is full.
    """
    settings = _completed(settings)
    tasks = plan_slides(settings)
    mine = part_of(tasks, parse_shard(settings.shard))
    out = Path(settings.out)
    begun = time.time()
    with open_run(settings, shared=True):  # every slide has a lock of its own
        process_slides(settings, mine, run_id=uuid4().hex)
        results = finish(settings, out, mine, seconds=time.time() - begun, embedded=_is_demonstration(settings))
    if len(mine) < len(tasks):
        sys.stderr.write(
            f"part {settings.shard}: {len(mine)} of {len(tasks)} slides; the report has all that are done\n"
        )
    return 0 if all(map(is_well, results)) else 1


def _completed(settings: SlideSettings) -> SlideSettings:
    """The settings with the slides and heads that they leave open."""
    head = settings.head or (["embedded"] if settings.encoder == "embedded" else [])
    slides = settings.slides or [str(path) for path in embedded_slides()]
    return replace(settings, slides=slides, head=head)


def _is_demonstration(settings: SlideSettings) -> bool:
    """Whether a model made for demonstration is used."""
    return settings.encoder == "embedded" or "embedded" in settings.head
