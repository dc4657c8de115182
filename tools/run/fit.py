"""One training, from its settings to tested best weights: of classifiers, bag heads and restorers alike."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ..settings.train import ImageTrainerSettings, OptimizerSettings, TrainerSettings
from .callbacks import BestEpoch, EpochLine, EpochSeed, EpochTable, LastCheckpoint, SafeCheckpointIO
from .run_folder import plain_settings

__all__ = ["Fit", "build_trainer", "fit", "optimizer_arguments", "quiet_lightning"]


@dataclass(frozen=True)
class Fit:
    """What a training came to; the module holds the weights of the best epoch and has been tested with them.

    Attributes:
        metrics: what was logged last, by name: `test_...` and others.
        best_epoch: counted from 1.
        epochs: how many were trained.
        rows: of metrics.csv, one an epoch.
    """

    metrics: dict[str, float]
    best_epoch: int
    epochs: int
    rows: list[dict[str, float]]


def fit(
    module: LightningModule,
    data: LightningDataModule,
    folder: Path,
    settings: TrainerSettings,
    *,
    monitor: str | None,
    mode: str = "max",
    seed: int | None = None,
    earliest_stop: int = 1,
    save_every_s: float = 0.0,
    limit_test: bool = True,
) -> Fit:
    """Train, or resume a stopped training; then load the weights of the best epoch and test them.

    The folder gets metrics.csv, a row an epoch, and last.ckpt, from which a stopped training resumes with the numbers
    that it would have had; one that had stopped early is not trained on.

    Args:
        module: what learns. Where it has a true attribute `leaves_parameters_unused`, some of its parameters have no
            gradient in a step, and several devices look for those.
        data: its data module, with the images or bags of one device.
        folder: where to; it exists.
        settings: of the trainer.
        monitor: a logged metric that chooses the best epoch and is watched for early stopping; None keeps the last
            epoch, without validation.
        mode: whether less ("min") or more ("max") of it is better.
        seed: of every epoch; None is that of the settings.
        earliest_stop: earliest epoch, counted from 1, after which it may stop early.
        save_every_s: seconds between two checkpoints at least, where epochs are short.
        limit_test: whether `settings.limit_batches` holds for the test too.

    Raises:
        ValueError: a device, strategy or precision that is not available, a damaged checkpoint, or the loss is not
            finite.
        OSError: a checkpoint cannot be written.
    """
    table = EpochTable(folder / "metrics.csv", save_every_s)
    best = BestEpoch(monitor, mode, patience=settings.early_stop, earliest=earliest_stop)
    seeds = EpochSeed(settings.seed if seed is None else seed)
    callbacks: list[Callback] = [seeds, table, best, LastCheckpoint(folder, save_every_s)]
    short = save_every_s > 0
    callbacks.append(RichProgressBar() if sys.stderr.isatty() and not short else EpochLine(20.0 if short else 0.0))
    if isinstance(settings, ImageTrainerSettings) and settings.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    options: dict[str, Any] = {
        "max_epochs": settings.epochs,
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": settings.nodes,
        "precision": settings.precision,
        "accumulate_grad_batches": settings.accumulate,
        "gradient_clip_val": settings.optimizer.clip_grad,
        "limit_train_batches": settings.limit_batches,
        "limit_val_batches": settings.limit_batches if monitor else 0,
        "limit_test_batches": settings.limit_batches if limit_test else None,
        "logger": _loggers(settings, folder) if isinstance(settings, ImageTrainerSettings) else False,
        "enable_checkpointing": True,
    }
    trainer = build_trainer(callbacks, strategy=settings.strategy, **options)
    if trainer.world_size > 1 and settings.strategy in ("auto", "ddp") and leaves_parameters_unused(module):
        trainer = build_trainer(callbacks, strategy="ddp_find_unused_parameters_true", **options)
    checkpoint = folder / "last.ckpt"
    with quiet_lightning():
        if not _restore_if_stopped(checkpoint, best, table):
            resume = str(checkpoint) if checkpoint.exists() else None
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        module.load_state_dict(best.weights)
        trainer.test(module, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Fit(metrics, best.epoch, best.epochs, table.rows)


def build_trainer(callbacks: list[Callback], **options: Any) -> Trainer:
    """Lightning's trainer with what all jobs want; `options` go to `Trainer`.

    Raises:
        ValueError: a device, strategy or precision that is not available here.
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
            **({"logger": False, "enable_checkpointing": False} | options),
        )
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"no trainer for these devices: {error} (regard doctor shows what is available)") from error


def optimizer_arguments(settings: OptimizerSettings) -> dict[str, Any]:
    """Settings of the optimiser as arguments of our Lightning modules."""
    arguments = asdict(settings)
    arguments.pop("clip_grad")  # of the trainer
    return {"optimizer": arguments.pop("name"), **arguments}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out warnings that are of no use to who runs a job: advice on what settings decide, library internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", message="You have overridden `transfer_batch_to_device`")
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        yield


def leaves_parameters_unused(module: LightningModule) -> bool:
    """Whether some parameters have no gradient in a step."""
    return bool(getattr(module, "leaves_parameters_unused", False))


def _restore_if_stopped(checkpoint: Path, best: BestEpoch, table: EpochTable) -> bool:
    """Whether the training had ended early when the checkpoint was written; then the callbacks are as they were."""
    if not checkpoint.exists():
        return False
    states = SafeCheckpointIO().load_checkpoint(checkpoint)["callbacks"]
    if not states["BestEpoch"]["stopped"]:
        return False
    best.load_state_dict(states["BestEpoch"])
    table.load_state_dict(states["EpochTable"])
    return True


def _loggers(settings: ImageTrainerSettings, folder: Path) -> list[Logger] | bool:
    loggers: list[Logger] = []
    for name in settings.loggers:
        try:
            if name == "tensorboard":
                loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
            else:
                loggers.append(WandbLogger(project="regard", save_dir=folder, config=plain_settings(settings)))
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f'--loggers {name} needs: pip install "regard[{name}]"') from error
    return loggers or False
