"""What the data modules of images share: batches of several devices, and the options of their loaders."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning import LightningDataModule

__all__ = ["ShardedDataModule", "available_cores"]


class ShardedDataModule(LightningDataModule):
    """A data module whose `batch_size` counts all samples of an optimiser step, over devices and accumulated batches.

    Args:
        batch_size: samples of an optimiser step.
        workers: processes that read, for each device; 0 reads in the main process. Default: a share of the processor
            cores, at most 8.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(self, *, batch_size: int, workers: int | None = None) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        if workers is not None and workers < 0:
            raise ValueError(f"workers is {workers}, expected at least 0")
        self.batch_size = batch_size
        self.workers = workers

    @property
    def world_size_and_rank(self) -> tuple[int, int]:
        """Number of processes, and the rank of this one."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @property
    def device_batch_size(self) -> int:
        """Samples of one training batch of one device.

        Raises:
            ValueError: `batch_size` is not divisible by devices x accumulated batches.
        """
        world_size, _ = self.world_size_and_rank
        accumulate = self.trainer.accumulate_grad_batches if self.trainer else 1
        parts = world_size * accumulate
        if self.batch_size % parts:
            near = max(1, self.batch_size // parts) * parts
            raise ValueError(
                f"batch_size {self.batch_size} counts all samples of an optimiser step; it is not divisible by "
                f"{world_size} devices x {accumulate} accumulated batches. Try {near}"
            )
        return self.batch_size // parts

    def loader_options(self) -> dict[str, Any]:
        """Options of every `DataLoader` of this module."""
        workers = self.workers
        if workers is None:
            workers = min(8, max(1, available_cores() // (self.trainer.num_devices if self.trainer else 1)))
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
