"""Who works on which slide: this process, several of this machine, or the workers of a Ray cluster.

All run the same code on one list. A slide is taken by a lock, so that also several commands may work on one folder; a
process that dies leaves its slide to the others, or to the next run.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..run.ray_tasks import run_on_ray
from ..settings import SlideSettings
from .cohort_plan import SlideTask
from .pipeline import work_on
from .slide_models import Instruments, load_instruments
from .stage_runner import SlideWork, attempted, note_failure

__all__ = ["work_by_processes", "work_on_ray", "work_through"]

_held: dict[str, Instruments] = {}


def work_through(settings: SlideSettings, tasks: Sequence[SlideTask], token: str) -> None:
    """Work on the slides in this process.

    Args:
        settings: of the run.
        tasks: the slides.
        token: name of the run; a slide that was tried under it is left alone.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a slide is told in its result
    work_on([SlideWork(task, settings, _instruments(settings), token) for task in tasks])


def work_by_processes(settings: SlideSettings, tasks: Sequence[SlideTask], token: str) -> None:
    """Work on the slides in `settings.workers` processes; one that is killed is told of in the results.

    Args:
        settings: of the run.
        tasks: the slides.
        token: name of the run.
    """
    _instruments(settings)  # what is wrong with them is told here
    _held.clear()
    context = multiprocessing.get_context("spawn")
    count = min(settings.workers, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // count)
    processes = []
    for number in range(count):
        own = replace(settings, device=_device_of(settings, number))
        start = number * len(tasks) // count
        order = [*tasks[start:], *tasks[:start]]  # each begins elsewhere
        processes.append(context.Process(target=_process, args=(own, order, token, threads)))
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    ended = [process.exitcode for process in processes if process.exitcode]
    _tell_of_untried(settings, tasks, token, f"its process ended with {_exit(ended)}" if ended else "nobody took it")


def work_on_ray(settings: SlideSettings, tasks: Sequence[SlideTask], token: str) -> None:
    """Work on the slides on a Ray cluster, a task a slide; the folder has to be on a disk that the workers share.

    Args:
        settings: of the run.
        tasks: the slides.
        token: name of the run.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    _instruments(settings)
    _held.clear()
    where = {"out": str(Path(settings.out).resolve()), "engine": "local"}
    jobs: dict[str, tuple[Any, ...]] = {
        task.id: ({**asdict(settings), **where}, {**asdict(task), "path": str(Path(task.path).resolve())}, token)
        for task in tasks
    }
    failed = run_on_ray(
        _ray_task, jobs, retries=3, instead="Or --workers 4 on this machine, or --shard 1/2 on each of two"
    )
    for task in tasks:
        if task.id in failed and not attempted(settings, task, token):
            note_failure(settings, task, token, failed[task.id])
    _tell_of_untried(settings, tasks, token, "no worker finished it")


def _ray_task(settings: dict[str, Any], task: dict[str, Any], token: str) -> None:
    """One slide, in a process of a worker; encoder and heads stay for the next."""
    work_through(replace(SlideSettings(), **settings), [SlideTask(**task)], token)


def _process(settings: SlideSettings, tasks: Sequence[SlideTask], token: str, threads: int) -> None:
    torch.set_num_threads(threads)
    work_through(settings, tasks, token)


def _instruments(settings: SlideSettings) -> Instruments:
    """Encoder and heads, which a process keeps for its next slide."""
    key = repr(settings)
    if key not in _held:
        _held.clear()
        _held[key] = load_instruments(settings)
    return _held[key]


def _tell_of_untried(settings: SlideSettings, tasks: Sequence[SlideTask], token: str, reason: str) -> None:
    for task in tasks:
        if not attempted(settings, task, token):
            note_failure(settings, task, token, f"{reason}; the same command takes it up again")


def _exit(codes: Sequence[int]) -> str:
    signals = [f"signal {-code}" if code < 0 else f"exit code {code}" for code in codes]
    return ", ".join(signals) + (" (not enough memory?)" if -9 in codes else "")


def _device_of(settings: SlideSettings, number: int) -> str | None:
    if settings.device is None and torch.cuda.device_count() > 1:
        return f"cuda:{number % torch.cuda.device_count()}"
    return settings.device
