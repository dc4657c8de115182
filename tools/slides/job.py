"""`regard slide`: whole slides to tissue, grid, features, prediction and heatmap.

The output folder holds settings.yaml, run.json (versions), summary.json, summary.csv and report.html; and for each
slide ID what its stages made: thumbnails/ID.jpg, tissue/ID.geojson and .jpg, patches/ID.h5,
features_ENCODER/h5_files/ID.h5 (and pt_files/ID.pt), predictions/ID.json, heatmaps/, top/ID.jpg, pages/ID/,
slides/ID.json (its result) and stages/ID.json (its stage cache). A stage runs again if its inputs or its files have
changed; but tissue/ID.geojson may be edited, and is then used as it is.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from ...whole_files import write_atomically
from ..run.shards import parse_shard, part_of
from ..settings import SlideSettings
from .cohort_plan import plan_slides
from .embedded import embedded_slides
from .parallel import process_slides
from .summary import finish, is_well

__all__ = ["run"]

#: Settings that decide what features are; a folder holds those of one set of them.
_FIXED = (
    *("encoder", "weights", "mpp", "patch", "overlap", "min_tissue", "align", "tissue", "segmenter", "slide_mpp"),
    *("reader", "precision"),
)


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
    _open_folder(settings, out)
    begun = time.time()
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


def _open_folder(settings: SlideSettings, out: Path) -> None:
    """Make the output folder, or resume in it.

    Raises:
        ValueError: it is a file, or holds features of other settings.
        OSError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    now, file = asdict(settings), out / "settings.yaml"
    if file.is_file() and (out / "stages").is_dir():
        before = _read_settings(file)
        different = [
            f"{name}: {before[name]!r} there, {now[name]!r} here"
            for name in _FIXED
            if name in before and before[name] != now[name]
        ]
        if different:
            raise ValueError(f"{out} holds a run with other settings ({'; '.join(different)}); give another --out")
    names = ("regard", "torch", "timm", "numpy", "openslide-python", "tifffile")
    versions = {"python": platform.python_version()} | {name: version(name) for name in names}
    write_atomically(file, yaml.safe_dump(now, sort_keys=False))
    write_atomically(out / "run.json", json.dumps({"versions": versions, "command": sys.argv[1:]}, indent=1))


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}; give another --out") from error
    return read if isinstance(read, dict) else {}
