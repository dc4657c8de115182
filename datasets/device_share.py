"""What one device of a training gets: its rank, its share of a batch, its processes that read."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Trainer

__all__ = ["cores", "device_batch_size", "rank_of"]


def rank_of(trainer: Trainer | None) -> tuple[int, int]:
    """How many processes train, and which of them this one is, from 0; (1, 0) without a trainer."""
    return (trainer.world_size, trainer.global_rank) if trainer else (1, 0)


def device_batch_size(batch_size: int, trainer: Trainer | None) -> int:
    """Samples in one batch of one device.

    Args:
        batch_size: samples in one step of the optimiser, over all devices and accumulated batches.
        trainer: the one that trains; None is one device without accumulation.

    Raises:
        ValueError: `batch_size` does not divide by the devices and accumulated batches.

    Example:
        >>> device_batch_size(32, None)
        32
    """
    devices, _ = rank_of(trainer)
    accumulate = trainer.accumulate_grad_batches if trainer else 1
    parts = devices * accumulate
    if batch_size % parts:
        raise ValueError(
            f"batch_size {batch_size} counts all samples of an optimiser step; it does not divide by {devices} devices "
            f"x {accumulate} accumulated batches. Try {max(1, batch_size // parts) * parts}"
        )
    return batch_size // parts


def cores() -> int:
    """Processor cores that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
