"""Shards of an evaluation on the workers of a Ray cluster, or of this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .settings import EvaluateSettings, ImageSettings

__all__ = ["run_shards"]


def run_shards(settings: EvaluateSettings, workers: int) -> None:
    """Answer all shards; those that are done stay when one fails, and the same command goes on.

    A worker takes a GPU where the cluster has some, and a core otherwise. All of them write into one folder, so it has
    to be on a disk that they share.

    Args:
        settings: of the evaluation.
        workers: how many shards.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: a shard failed; says which, and why.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "--engine ray needs Ray: pip install ray. Without it, --shard 1/2 and --shard 2/2 in two processes do as well"
        ) from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    resources: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    task = ray.remote(**resources, max_retries=1)(_shard)
    where = {"out": str(Path(settings.out).resolve())}
    waiting = {
        task.remote({**asdict(settings), **where, "engine": "local", "shard": f"{number}/{workers}"}): number
        for number in range(1, workers + 1)
    }
    failed: dict[int, str] = {}
    try:
        while waiting:
            [done], _ = ray.wait(list(waiting))
            number = waiting.pop(done)
            try:
                ray.get(done)
                sys.stderr.write(f"shard {number} of {workers} is done\n")
            except (ray.exceptions.RayError, ValueError, OSError) as error:
                failed[number] = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    finally:
        ray.shutdown()
    if failed:
        told = "; ".join(f"{number}: {why}" for number, why in sorted(failed.items()))
        raise ValueError(f"{len(failed)} of {workers} shards failed ({told}). The same command goes on with the others")


def _shard(settings: dict[str, Any]) -> None:
    """One shard, in a process of its own."""
    from .evaluate_lvlms import run

    run(replace(EvaluateSettings(), **{**settings, "images": ImageSettings(**settings["images"])}))
