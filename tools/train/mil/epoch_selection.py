"""Which epoch of a run counts: the best on validation bags, or the last; and when to stop early."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["Selection"]


class Selection(Callback):
    """Keeps the weights of the best epoch, of several alike those of the last; its state goes with the checkpoint.

    Args:
        monitor: a logged metric; None keeps the last epoch.
        mode: whether less or more of it is better.
        patience: end the training after so many epochs without a better one; None does not.
        earliest: but not before this epoch, counted from 1.
    """

    def __init__(
        self,
        monitor: str | None,
        mode: Literal["min", "max"] | str = "max",
        *,
        patience: int | None = None,
        earliest: int = 1,
    ) -> None:
        self.monitor, self.sign = monitor, -1.0 if mode == "min" else 1.0
        self.patience, self.earliest = patience, earliest
        self.best, self.best_epoch, self.risen_epoch, self.epochs = -math.inf, 0, 0, 0
        self.stopped = False
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch; validation comes before this."""
        self.epochs = trainer.current_epoch + 1
        value = math.inf
        if self.monitor is not None:
            value = self.sign * float(trainer.callback_metrics[self.monitor])
            value = -math.inf if math.isnan(value) else value
        if value > self.best:
            self.risen_epoch = self.epochs
        if value >= self.best:
            self.best, self.best_epoch = value, self.epochs
            self.weights = {key: weight.detach().cpu().clone() for key, weight in pl_module.state_dict().items()}
        waited = self.epochs - self.risen_epoch
        if self.monitor and self.patience is not None and waited >= self.patience and self.epochs >= self.earliest:
            self.stopped = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        kept = ("best", "best_epoch", "risen_epoch", "epochs", "stopped", "weights")
        return {key: getattr(self, key) for key in kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        for key, value in state_dict.items():
            setattr(self, key, value)
