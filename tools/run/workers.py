"""Independent tasks in separate processes: of this machine, or of a Ray cluster.

A task that fails, or whose process dies, does not stop the others.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from itertools import count
from multiprocessing import connection
from typing import Any, Literal

__all__ = ["run_tasks"]


def run_tasks(
    function: Callable[..., Any],
    tasks: Mapping[str, tuple[Any, ...]],
    *,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    divide_gpus: bool = True,
    retries: int = 1,
) -> dict[str, str]:
    """Run tasks, several at once, and wait for all of them.

    Of this machine, each task has a process that starts afresh, and an equal part of the cores. On Ray, a task takes a
    GPU where the cluster has some, and a core otherwise.

    Args:
        function: what a task runs, by its name in a module; the result is dropped.
        tasks: name -> arguments, which can be pickled.
        engine: local for processes of this machine, ray for those of a Ray cluster.
        workers: tasks that run at once on this machine; Ray runs as many as the cluster has room for.
        divide_gpus: on a machine with several GPUs, let each task see only one of them.
        retries: how often Ray starts a task again whose worker died.

    Returns:
        Name -> reason of the tasks that failed.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    if engine == "ray":
        return _run_on_ray(function, tasks, retries)
    return _run_here(function, tasks, workers, divide_gpus)


def _run_here(
    function: Callable[..., Any], tasks: Mapping[str, tuple[Any, ...]], workers: int, divide_gpus: bool
) -> dict[str, str]:
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(workers, len(tasks)))
    threads = max(1, (os.cpu_count() or 1) // workers)
    gpus = _visible_gpus() if divide_gpus else []
    waiting, free = list(tasks.items()), list(range(workers))
    running: dict[int, tuple[str, int, Any, Any]] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and free:
                (name, arguments), slot = waiting.pop(0), free.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                gpu = gpus[slot % len(gpus)] if len(gpus) > 1 else None
                process = context.Process(target=_call, args=(sender, threads, gpu, function, arguments))
                process.start()
                sender.close()
                running[process.sentinel] = name, slot, process, receiver
            for sentinel in connection.wait(list(running)):
                name, slot, process, receiver = running.pop(sentinel)  # type: ignore[arg-type]
                process.join()
                if process.exitcode:
                    try:
                        failed[name] = receiver.recv()
                    except EOFError:  # it died
                        failed[name] = _exit_reason(process.exitcode)
                receiver.close()
                free.append(slot)
    finally:
        for _, _, process, _ in running.values():
            process.terminate()
    return failed


def _call(
    sender: connection.Connection,
    threads: int,
    gpu: str | None,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Run a task in its process; send the reason if it fails."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    torch.set_num_threads(threads)
    try:
        function(*arguments)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sender.send(str(error))
        sys.exit(1)


def _visible_gpus() -> list[str]:
    """Names of the GPUs as CUDA_VISIBLE_DEVICES accepts them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, count())
    return [name for name, _ in zip(names, range(torch.cuda.device_count()), strict=False)]


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process ended with signal {-code}" + (" (not enough memory?)" if code == -9 else "")


def _run_on_ray(function: Callable[..., Any], tasks: Mapping[str, tuple[Any, ...]], retries: int) -> dict[str, str]:
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            '--engine ray needs Ray: pip install "regard[ray]". Without it: --workers 4 on one machine, or --shard 1/2 '
            "and --shard 2/2 on two"
        ) from None
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
