"""Which process works on which slide: this one, several of this machine, or those of a Ray cluster.

All run the same code on one list. A slide is locked while a process works on it, so several commands may also share one
folder; a process that dies leaves its slide to the others, or to the next run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..run.workers import run_tasks
from ..settings import SlideSettings
from .cohort_plan import SlideTask
from .pipeline import run_pipeline
from .slide_models import SlideModels, load_models
from .slide_record import SlideRecord
from .stage_runner import SlideRunner

__all__ = ["process_slides"]

_loaded: dict[str, SlideModels] = {}


def process_slides(settings: SlideSettings, tasks: Sequence[SlideTask], run_id: str) -> None:
    """Work through slides; a slide whose process is killed is recorded as failed.

    Args:
        settings: of the run; see `engine` and `workers`.
        tasks: the slides.
        run_id: identity of the run; a slide that was was_attempted under it is left alone.

    Raises:
        ValueError: an encoder, a head or a device cannot be used.
        ModuleNotFoundError: Ray is not installed.
    """
    models = _models(settings)  # what is wrong with them is reported here, once
    if settings.engine == "local" and settings.workers == 1:
        _process_here(settings, tasks, run_id)
        return
    del models
    _loaded.clear()
    own = replace(settings, out=str(Path(settings.out).resolve()), engine="local", workers=1)
    tasks = [replace(task, path=str(Path(task.path).resolve())) for task in tasks]
    if settings.engine == "ray":
        jobs = {task.id: (own, [task], run_id) for task in tasks}
    else:  # each process has the whole list, and begins elsewhere
        count = min(settings.workers, len(tasks))
        starts = [number * len(tasks) // count for number in range(count)]
        jobs = {f"worker {start}": (own, [*tasks[start:], *tasks[:start]], run_id) for start in starts}
    failed = run_tasks(
        _process_here,
        jobs,
        engine=settings.engine,
        workers=settings.workers,
        divide_gpus=settings.device is None,
        retries=3,
    )
    reasons = "; ".join(sorted(set(failed.values()))) or "no process worked on it"
    for task in tasks:
        record = SlideRecord(task, Path(own.out))
        if not record.was_attempted(run_id):
            reason = failed.get(task.id, reasons)
            record.update(status="failed", reason=f"{reason}; run the same command to resume")
            record.save(run_id)


def _process_here(settings: SlideSettings, tasks: Sequence[SlideTask], run_id: str) -> None:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # problems of a slide are in its result
    models = _models(settings)
    run_pipeline([SlideRunner(task, settings, models, run_id) for task in tasks])


def _models(settings: SlideSettings) -> SlideModels:
    """Encoder and heads, which a process keeps for its next task."""
    key = repr(settings)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_models(settings)
    return _loaded[key]
