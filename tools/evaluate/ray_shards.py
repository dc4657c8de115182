"""Shards of an evaluation on the workers of a Ray cluster, or of this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..run.ray_tasks import run_on_ray
from ..settings import EvaluateLvlmSettings

__all__ = ["run_shards"]


def run_shards(settings: EvaluateLvlmSettings, workers: int) -> None:
    """Answer all shards; those that are done stay when one fails, and the same command goes on.

    All of them write into one folder, so it has to be on a disk that the workers share.

    Args:
        settings: of the evaluation.
        workers: how many shards.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: a shard failed; says which, and why.
    """
    where = {"out": str(Path(settings.out).resolve()), "engine": "local"}
    tasks = {
        f"shard {number} of {workers}": ({**asdict(settings), **where, "shard": f"{number}/{workers}"},)
        for number in range(1, workers + 1)
    }
    failed = run_on_ray(_shard, tasks, retries=1, instead="Or run --shard 1/2 and --shard 2/2 in two processes")
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items()))
        raise ValueError(f"{len(failed)} of {workers} shards failed ({told}). The same command goes on with the others")


def _shard(settings: dict[str, Any]) -> None:
    """One shard, in a process of its own."""
    from .lvlm import run

    run(EvaluateLvlmSettings(**settings))
