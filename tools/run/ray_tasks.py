"""Tasks on the workers of a Ray cluster, or of this machine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["run_on_ray"]


def run_on_ray(
    function: Callable[..., Any], tasks: Mapping[str, tuple[Any, ...]], *, retries: int, instead: str
) -> dict[str, str]:
    """Run tasks, each in a process of a worker; those that are done stay when one fails.

    A task takes a GPU where the cluster has some, and a core otherwise. Where a worker or its machine dies, its task
    goes to another.

    Args:
        function: that a task runs; it is imported by the worker.
        tasks: name -> arguments.
        retries: how often a task is begun again after its worker died.
        instead: what to do without Ray, for the message.

    Returns:
        Name -> reason of the tasks that failed.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f'--engine ray needs Ray: pip install "regard[ray]". {instead}') from None
    ours = not ray.is_initialized()
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    resources: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    task = ray.remote(**resources, max_retries=retries)(function)
    waiting = {task.remote(*arguments): name for name, arguments in tasks.items()}
    failed: dict[str, str] = {}
    try:
        while waiting:
            [done], _ = ray.wait(list(waiting))
            name = waiting.pop(done)
            try:
                ray.get(done)
                sys.stderr.write(f"{name} is done\n")
            except (ray.exceptions.RayError, ValueError, OSError) as error:
                failed[name] = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    finally:
        if ours:
            ray.shutdown()
    return failed
