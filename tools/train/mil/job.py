"""`regard train` with `bags`: heads on bags of features, side by side on the same folds with the same seeds.

The output folder holds settings.yaml, run.json (versions), folds/ (the splits as CLAM writes them), for each head, fold
and seed runs/HEAD/fold_K_seed_S/ (metrics.csv, result.json, and model/, the trained head that `load_trained_head`
reads), and when all are done predictions.csv, runs.csv, summary.json and heads.png.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from ....datasets.bags import Bags, Fold, write_folds
from ....datasets.bags.loaders import measure_loader, train_loader
from ....heads import AEM
from ....heads.ibmil import confounders_of
from ....heads.metrics import SCORES
from ....heads.survival import intervals_of, survival_cuts
from ....heads.trained_head import TrainedHead, load_trained_head, save_trained_head
from ....heads.training import BagTrainer
from ....whole_files import write_atomically
from ...run.run_folder import finished, first_process, open_folder
from ...settings import BagSettings, TrainSettings
from ..callbacks import (
    EpochLine,
    EpochSeed,
    EpochTable,
    LastCheckpoint,
    SafeCheckpointIO,
    build_trainer,
    quiet_lightning,
)
from .cross_validation import Run, World, check, open_worlds, plan, try_heads
from .epoch_selection import Selection
from .tables import print_tables, summarise, write_tables

__all__ = ["run"]

#: Seconds between checkpoints of a run; so much work at most is done again after a stop.
SAVE_S = 2.0
#: Settings that only add to a finished run; what is there is kept.
_GROWING = ("bags.heads", "bags.seeds", "bags.reference", "bags.resamples")


def run(settings: TrainSettings) -> int:
    """Train every head on every fold with every seed, or go on where a stopped run was; then compare them.

    Args:
        settings: with `bags`.

    Raises:
        ValueError: a setting or the data is wrong, or the output folder belongs to a run with other settings.
        OSError: the output folder cannot be written.
    """
    assert settings.bags is not None
    check(settings)
    out = Path(settings.out)
    summary = finished(settings)
    if summary is None:
        worlds = open_worlds(settings)
        runs = plan(settings, worlds)
        try_heads(settings.bags, worlds[0].bags)
        open_folder(settings, growing=_GROWING)
        if first_process():
            (out / "summary.json").unlink(missing_ok=True)  # of fewer heads or seeds
            _write_folds(worlds, out)
        left = [one for one in runs if not _is_done(one)]
        for count, one in enumerate(left, 1):
            _train(settings, one, f"{count}/{len(left)}")
        if not first_process():
            return 0
        results = [json.loads((one.folder / "result.json").read_text(encoding="utf-8")) for one in runs]
        summary = summarise(settings, results, own_worlds=worlds[0].own)
        write_tables(out, summary, results)
        write_atomically(out / "summary.json", json.dumps(summary, indent=1))
    if first_process():
        print_tables(summary)
    return 0


def _train(settings: TrainSettings, run: Run, count: str) -> None:
    """One head on one fold with one seed."""
    chosen, begun = settings.bags, time.monotonic()
    assert chosen is not None
    run.folder.mkdir(parents=True, exist_ok=True)
    if first_process():
        write_atomically(run.folder / "head.json", json.dumps(asdict(run.head), indent=1))
    bags, fold = run.world.bags, run.fold
    torch.manual_seed(run.seed)
    model = _build(settings, run)
    if chosen.standardise:
        model.mean, model.std = run.world.statistics(fold)
    options = asdict(settings.optimizer)
    clip_grad = options.pop("clip_grad")
    options.pop("layer_decay")
    learner = BagTrainer(
        model,
        aem=None if run.head.aem is None else AEM(**asdict(run.head.aem)),
        class_weights=_class_weights(bags, fold) if chosen.class_weights == "balanced" else None,
        optimizer=options.pop("name"),
        wanted=bags.instance_labels,
        **options,
    )
    monitor, mode = ("val_loss", "min") if settings.best_by == "loss" else (f"val_{score_of(chosen)}", "max")
    selection = Selection(
        monitor if fold.val else None, mode, patience=settings.early_stop, earliest=chosen.early_stop_from
    )
    table = EpochTable(run.folder / "metrics.csv", every_s=SAVE_S)
    callbacks: list[Callback] = [EpochSeed(run.seed), table, selection, LastCheckpoint(run.folder, every_s=SAVE_S)]
    callbacks.append(EpochLine(every_s=20.0))
    trainer = _trainer(settings, callbacks, clip_grad)
    size = device_batch_size(settings, trainer)
    place: dict[str, Any] = {"world_size": trainer.world_size, "rank": trainer.global_rank, "workers": chosen.workers}
    training = train_loader(
        bags,
        fold.train,
        seed=run.seed,
        batch_size=size,
        instances=chosen.instances,
        weights=_sampling_weights(bags, fold) if chosen.weighted_sampling else None,
        **place,
    )
    measured = {"batch_size": size if chosen.instances is None else 1, **place}
    checkpoint = run.folder / "last.ckpt"
    with quiet_lightning():
        if not (checkpoint.exists() and _ended_early(checkpoint, selection)):
            trainer.fit(
                learner,
                training,
                measure_loader(bags, fold.val, **measured) if fold.val else None,
                ckpt_path=str(checkpoint) if checkpoint.exists() else None,
                weights_only=True,
            )
        learner.load_state_dict(selection.weights)
        trainer.test(learner, measure_loader(bags, fold.test, **measured), verbose=False)
    if trainer.is_global_zero:
        seconds = time.monotonic() - begun
        _finish(run, learner, selection)
        score = learner.tested[score_of(chosen)]
        where = f"{run.head_label}, fold {run.number}, seed {run.seed}"
        sys.stderr.write(f"{count}  {where}: {score_of(chosen)} {score:.3f}  ({seconds:.1f} s)\n")


def _build(settings: TrainSettings, run: Run) -> TrainedHead:
    """The head as it starts."""
    chosen, bags = settings.bags, run.world.bags
    assert chosen is not None
    options = dict(run.head.options)
    if chosen.chunk is not None:
        options["chunk"] = chosen.chunk
    cuts: list[float] = []
    classes = bags.classes
    if chosen.task == "survival":
        times, events = run.world.times(run.fold.train)
        cuts = survival_cuts(times, events, chosen.intervals)
        edges = [f"{cut:g}" for cut in cuts]
        ranges = [f"{low} to {high}" for low, high in pairwise(edges)]
        classes = [f"before {edges[0]}", *ranges, f"from {edges[-1]}"]
    own: dict[str, Any] = {"task": chosen.task, "cuts": cuts, "encoder": chosen.encoder}
    model = TrainedHead(run.head.name, bags.width, classes, options, standardised=chosen.standardise, **own)
    if run.head.after is not None:
        first = load_trained_head(run.folder.parents[1] / run.head.after / run.folder.name / "model")
        with torch.no_grad():
            vectors = [first(bags.features(place)).features for place in run.fold.train]
        found = model.head.get_buffer("confounder_feat")
        found.copy_(confounders_of(vectors, count=len(found), seed=run.seed))
    return model


def _trainer(settings: TrainSettings, callbacks: list[Callback], clip_grad: float | None) -> Trainer:
    def build(strategy: str) -> Trainer:
        return build_trainer(
            callbacks,
            max_epochs=settings.epochs,
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=strategy,
            precision=settings.precision,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=clip_grad,
            limit_train_batches=settings.limit_batches,
            limit_val_batches=settings.limit_batches,
            enable_checkpointing=True,
        )

    trainer = build(settings.strategy)
    if trainer.world_size > 1 and settings.strategy in ("auto", "ddp"):
        return build("ddp_find_unused_parameters_true")  # some heads have layers for classes that a batch has not
    return trainer


def device_batch_size(settings: TrainSettings, trainer: Trainer) -> int:
    """Bags of one batch of one device.

    Raises:
        ValueError: `batch_size` does not divide by the devices and accumulated batches.
    """
    parts = trainer.world_size * settings.accumulate
    if settings.batch_size % parts:
        raise ValueError(
            f"--batch_size {settings.batch_size} counts all bags of an update; it does not divide by "
            f"{trainer.world_size} devices x {settings.accumulate} accumulated batches. "
            f"Try {max(1, settings.batch_size // parts) * parts}"
        )
    return settings.batch_size // parts


def _finish(run: Run, learner: BagTrainer, selection: Selection) -> None:
    """Write what is kept of a run; result.json last, which says that it is done."""
    bags, model = run.world.bags, learner.model
    trained = {"fold": run.number, "seed": run.seed, "best_epoch": selection.best_epoch, "data": bags.name}
    save_trained_head(model, run.folder / "model", training=trained)
    predictions = []
    for found in learner.predictions:
        bag = bags.bags[found.place]
        truth: dict[str, Any] = {"label": bag.label}
        if model.task == "survival":
            time_, event = torch.tensor([float(bag.time or 0)]), bool(bag.event)
            truth = {"time": bag.time, "event": event, "interval": int(intervals_of(time_, model.cuts))}
        predictions.append({"slide": bag.id, "patient": bag.patient, **truth, **found._asdict()})
    result = {
        "head": run.head_label,
        "settings": asdict(run.head),
        "fold": run.number,
        "seed": run.seed,
        "classes": model.classes,
        "best_epoch": selection.best_epoch,
        "epochs": selection.epochs,
        "bags": {part: len(getattr(run.fold, part)) for part in ("train", "val", "test")},
        "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "metrics": learner.tested,
        "predictions": predictions,
    }
    write_atomically(run.folder / "result.json", json.dumps(result))
    (run.folder / "last.ckpt").unlink(missing_ok=True)


def _is_done(run: Run) -> bool:
    """Whether a run is finished.

    Raises:
        ValueError: its folder is of a head with other settings.
    """
    file = run.folder / "head.json"
    if file.is_file():
        before, now = json.loads(file.read_text(encoding="utf-8")), asdict(run.head)
        if before != now:
            different = [
                f"{key}: {before.get(key)!r} there, {now[key]!r} here" for key in now if before.get(key) != now[key]
            ]
            raise ValueError(
                f"{run.folder} holds another {run.head_label} ({'; '.join(different)}); give this one another label"
            )
    return (run.folder / "result.json").is_file()


def _ended_early(checkpoint: Path, selection: Selection) -> bool:
    """Whether training had ended by early stopping when this was written; then the selection is as it was."""
    states = SafeCheckpointIO().load_checkpoint(checkpoint)["callbacks"]
    state = next(state for name, state in states.items() if name.startswith("Selection"))
    if state["stopped"]:
        selection.load_state_dict(state)
    return bool(state["stopped"])


def _write_folds(worlds: list[World], out: Path) -> None:
    for world in worlds:
        folder = out / "folds" / (f"seed_{world.seeds[0]}" if world.own else "")
        folder.mkdir(parents=True, exist_ok=True)
        write_folds(folder, world.bags, world.folds)


def _counts(bags: Bags, fold: Fold) -> torch.Tensor:
    return torch.bincount(torch.tensor([bags.bags[place].label for place in fold.train]), minlength=len(bags.classes))


def _class_weights(bags: Bags, fold: Fold) -> list[float]:
    counts = _counts(bags, fold)
    return (counts.sum() / (len(counts) * counts)).tolist()


def _sampling_weights(bags: Bags, fold: Fold) -> list[float]:
    counts = _counts(bags, fold).tolist()
    return [1 / counts[bags.bags[place].label or 0] for place in fold.train]


def score_of(chosen: BagSettings) -> str:
    """Name of the metric that leads."""
    return chosen.score or SCORES[chosen.task][0]
