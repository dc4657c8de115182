"""What every training job shares: checkpoints that survive anything, epochs that repeat exactly, a table of epochs."""

from __future__ import annotations

import csv
import logging
import os
import pickle
import random
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ...whole_files import write_atomically

__all__ = [
    "BestCheckpoint",
    "EpochLine",
    "EpochSeed",
    "EpochTable",
    "LastCheckpoint",
    "SafeCheckpointIO",
    "build_trainer",
    "quiet_lightning",
    "read_table",
]


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it without running code from it.

    Raises:
        OSError: the disk is full or the folder is not writable; the previous checkpoint is as it was.
        ValueError: the file is truncated or no checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write beside the old file, then take its place."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as either
            partial.unlink(missing_ok=True)
            kept = "the previous one is as it was" if target.exists() else "none was there before"
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
                f"{path} is truncated or no checkpoint of Regard ({reason}). Remove it to start anew"
            ) from error


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out warnings that tell a user of a job nothing: advice on what settings decide, and library internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        yield


def build_trainer(callbacks: list[Callback], **own: Any) -> Trainer:
    """Lightning's trainer with what all our jobs want; `own` goes to `Trainer`.

    Raises:
        ValueError: a device, strategy or precision that is not to be had here.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        return Trainer(
            callbacks=callbacks,
            plugins=[SafeCheckpointIO()],
            use_distributed_sampler=False,  # the data module spreads images itself, without repeating any
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, RichProgressBar) for callback in callbacks),
            **({"logger": False, "enable_checkpointing": False} | own),
        )
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"no trainer for these devices: {error} (regard doctor shows what is here)") from error


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights of the epoch with the best score; of several with the same, those of the last.

    On a small validation set many epochs share a score, and the later ones have learnt more.
    """

    def check_monitor_top_k(self, trainer: Trainer, current: torch.Tensor | None = None) -> bool:
        """Whether the epoch's score is as good as the best."""
        ties = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return ties or super().check_monitor_top_k(trainer, current)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last epoch in last.ckpt, to go on from there.

    Args:
        folder: where to.
        every_s: least seconds between two, where epochs are short: as much work may have to be done again.
    """

    def __init__(self, folder: Path, every_s: float = 0.0) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.every_s, self.saved = every_s, time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless it was a moment ago."""
        due = time.monotonic() - self.saved >= self.every_s
        if self.every_s and trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)  # all processes wait for each other while saving
        if due:
            super().on_train_epoch_end(trainer, pl_module)
            self.saved = time.monotonic()


class EpochSeed(Callback):
    """Seeds everything by chance at the start of each epoch, so that an epoch repeats exactly after a restart.

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
    """Says how an epoch went in one line on stderr, where no terminal is there for a progress bar.

    Args:
        every_s: least seconds between lines; epochs that come sooner are left out.
    """

    def __init__(self, every_s: float = 0.0) -> None:
        self.every_s = every_s
        self.said = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.begin = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self.said >= self.every_s:
            self.said = now
            values = "  ".join(f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
            epochs = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            sys.stderr.write(f"epoch {epochs}  {values}  ({now - self.begin:.1f} s)\n")


class EpochTable(Callback):
    """Writes metrics.csv, a row for each epoch; the rows are part of the checkpoint, so a restart keeps them.

    Args:
        path: file to write.
        every_s: least seconds between two writings, where epochs are short; the last epoch is always written.

    Raises:
        ValueError: the training loss is no longer a number.
    """

    def __init__(self, path: Path, every_s: float = 0.0) -> None:
        self.path, self.every_s = path, every_s
        self.written = time.monotonic()
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        rate = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        row: dict[str, float] = {"epoch": trainer.current_epoch, "lr": rate}
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
        """Write the table anew."""
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
