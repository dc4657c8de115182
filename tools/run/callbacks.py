"""Callbacks of every training: safe checkpoints, the best epoch, epochs that repeat exactly, a table of epochs."""

from __future__ import annotations

import csv
import math
import pickle
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import nn

from ...whole_files import whole_file, write_atomically

__all__ = [
    "BestEpoch",
    "EpochLine",
    "EpochSeed",
    "EpochTable",
    "LastCheckpoint",
    "SafeCheckpointIO",
    "read_table",
]


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it without running code from it.

    Raises:
        OSError: the disk is full or the folder is not writable; the previous checkpoint is unchanged.
        ValueError: the file is truncated or not a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write next to the old file, then replace it."""
        target = Path(path)
        try:
            with whole_file(target) as partial:
                torch.save(checkpoint, partial)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as either
            kept = "the previous one is unchanged" if target.exists() else "there was none before"
            raise OSError(
                f"cannot write the checkpoint {target} ({error}); {kept}. Make room and run the same command again"
            ) from error

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read tensors and plain values; anything else in the file is refused."""
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except FileNotFoundError:
            raise
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{path} is truncated or not a checkpoint of Regard ({reason}). Remove it to start again"
            ) from error


class BestEpoch(Callback):
    """Keeps the weights of the best epoch, of several equally good ones those of the last, and stops early.

    On a small validation set many epochs share a score, and the later ones have learnt more. With a moving average of
    the weights (EMA), its weights are kept. The state is part of the checkpoint, so that a restart neither loses the
    best weights nor trains on after an early stop.

    Args:
        monitor: a logged metric; None keeps the last epoch.
        mode: whether less ("min") or more ("max") of it is better.
        patience: end the training after this many epochs without a better one; None does not.
        earliest: do not end it before this epoch, counted from 1.

    Attributes:
        epoch: the best one, counted from 1.
        epochs: how many were trained.
        stopped: whether the training has ended early.
        weights: of the best epoch, on the CPU.
    """

    def __init__(
        self, monitor: str | None, mode: str = "max", *, patience: int | None = None, earliest: int = 1
    ) -> None:
        self.monitor, self.sign = monitor, -1.0 if mode == "min" else 1.0
        self.patience, self.earliest = patience, earliest
        self.best, self.epoch, self.improved_epoch, self.epochs = -math.inf, 0, 0, 0
        self.stopped = False
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epoch with the best one; validation comes before this."""
        self.epochs = trainer.current_epoch + 1
        value = math.inf
        if self.monitor is not None:
            value = self.sign * float(trainer.callback_metrics[self.monitor])
            value = -math.inf if math.isnan(value) else value
        if value > self.best:
            self.improved_epoch = self.epochs
        if value >= self.best:
            self.best, self.epoch = value, self.epochs
            weights = _averaged(trainer, pl_module).state_dict()
            self.weights = {key: weight.detach().cpu().clone() for key, weight in weights.items()}
        waited = self.epochs - self.improved_epoch
        if self.monitor and self.patience is not None and waited >= self.patience and self.epochs >= self.earliest:
            self.stopped = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        kept = ("best", "epoch", "improved_epoch", "epochs", "stopped", "weights")
        return {key: getattr(self, key) for key in kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        for key, value in state_dict.items():
            setattr(self, key, value)


def _averaged(trainer: Trainer, module: LightningModule) -> nn.Module:
    """The module with the moving average of its weights, if one is kept."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            return callback._average_model.module
    return module


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last epoch in last.ckpt, from which a stopped run resumes.

    Args:
        folder: where to.
        every_s: seconds between two at least, where epochs are short: so much work is repeated after a stop.
    """

    def __init__(self, folder: Path, every_s: float = 0.0) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.every_s, self.saved = every_s, time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless the last checkpoint is younger than `every_s`."""
        due = time.monotonic() - self.saved >= self.every_s
        if self.every_s and trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)  # all processes wait for each other while saving
        if due:
            super().on_train_epoch_end(trainer, pl_module)
            self.saved = time.monotonic()


class EpochSeed(Callback):
    """Seeds all random generators at the start of each epoch, so that an epoch repeats exactly after a restart.

    Args:
        seed: seed of the run; what an epoch uses depends on it, the epoch and the process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed Python, NumPy and torch."""
        sequence = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class EpochLine(Callback):
    """Writes one line an epoch to stderr, where there is no terminal for a progress bar.

    Args:
        every_s: seconds between lines at least; epochs that end sooner get none.
    """

    def __init__(self, every_s: float = 0.0) -> None:
        self.every_s = every_s
        self.written = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.begin = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self.written >= self.every_s:
            self.written = now
            values = "  ".join(f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
            epochs = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            sys.stderr.write(f"epoch {epochs}  {values}  ({now - self.begin:.1f} s)\n")


class EpochTable(Callback):
    """Writes metrics.csv, a row for each epoch; the rows are part of the checkpoint, so a restart keeps them.

    Args:
        path: file to write.
        every_s: seconds between two writings at least, where epochs are short; the last epoch is always written.

    Raises:
        ValueError: the training loss is not finite.
    """

    def __init__(self, path: Path, every_s: float = 0.0) -> None:
        self.path, self.every_s = path, every_s
        self.written = time.monotonic()
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        rate = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        row: dict[str, float] = {"epoch": float(trainer.current_epoch), "lr": rate}
        row |= {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        if not np.isfinite(row.get("train_loss", 0.0)):
            raise ValueError(
                f"the training loss became {row['train_loss']} in epoch {trainer.current_epoch}; try a lower "
                "--optimizer.lr, a longer --optimizer.warmup_epochs, --optimizer.clip_grad 1.0, or 32-true precision"
            )
        self.rows = [old for old in self.rows if old["epoch"] < row["epoch"]] + [row]
        if trainer.is_global_zero and time.monotonic() - self.written >= self.every_s:
            self.write()
            self.written = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is not written yet."""
        if trainer.is_global_zero and self.every_s and self.rows:
            self.write()

    def write(self) -> None:
        """Write the whole table."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(f"{row[name]:.10g}" if name in row else "" for name in names) for row in self.rows]
        write_atomically(self.path, "\n".join([",".join(names), *lines]) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Rows for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rows from the checkpoint."""
        self.rows = state_dict["rows"]


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, each with what was measured in its epoch."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
