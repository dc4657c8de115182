"""The optimisers and learning rate schedules of timm, for Lightning modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

__all__ = ["ScheduledModule"]


class ScheduledModule(LightningModule):
    """A Lightning module whose `model` learns with an optimiser of timm and a schedule that is set at every update.

    A subclass saves these hyperparameters: `optimizer`, `lr`, `weight_decay`, `momentum`, `schedule`, `warmup_epochs`,
    `warmup_lr`, `min_lr`, `cooldown_epochs`; and where it has them `layer_decay`, and `halve_at`, the shares of the
    updates (0-1) after which the rate is halved, instead of `schedule`.

    Attributes:
        model: the network that learns.
        optimizer_options: further arguments of the optimiser, such as its betas.
    """

    model: nn.Module

    @property
    def optimizer_options(self) -> Mapping[str, Any]:
        """None by default."""
        return {}

    def configure_optimizers(self) -> Any:
        """Build the optimiser, and its schedule for the trainer's epochs.

        Raises:
            ValueError: an unknown optimiser or schedule, or warmup and cooldown take all epochs.
        """
        chosen = self.hparams
        optimizer = create_optimizer_v2(
            self.model,
            opt=chosen["optimizer"],
            lr=chosen["lr"],
            weight_decay=chosen["weight_decay"],
            momentum=chosen["momentum"],
            layer_decay=chosen.get("layer_decay"),
            **self.optimizer_options,
        )
        epochs = self.trainer.max_epochs or 1
        warmup, cooldown = chosen["warmup_epochs"], chosen["cooldown_epochs"]
        if not 0 <= warmup + cooldown < epochs:
            raise ValueError(f"warmup_epochs {warmup} and cooldown_epochs {cooldown} leave nothing of {epochs} epochs")
        halve_at: Sequence[float] = chosen.get("halve_at", ())
        schedule: dict[str, Any] = {"sched": chosen["schedule"]}
        if halve_at:
            milestones = [share * epochs for share in halve_at]
            schedule = {"sched": "multistep", "decay_milestones": milestones, "decay_rate": 0.5}
        scheduler, _ = create_scheduler_v2(
            optimizer,
            **schedule,
            num_epochs=epochs - cooldown,
            warmup_epochs=warmup,
            warmup_lr=chosen["warmup_lr"],
            min_lr=chosen["min_lr"],
            step_on_epochs=False,
            updates_per_epoch=max(1, int(self.trainer.estimated_stepping_batches) // epochs),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Set the rate by the number of updates so far."""
        scheduler.step_update(num_updates=self.global_step)

    @staticmethod
    def refuse_plateau(schedule: str) -> None:
        """Refuse a schedule that follows a metric.

        Raises:
            ValueError: the schedule is one of timm's `plateau` schedules.
        """
        if "plateau" in schedule:
            raise ValueError(f"schedule {schedule!r} needs a metric; use one by time, such as cosine")
