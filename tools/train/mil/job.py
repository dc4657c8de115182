"""`regard train mil`: heads on bags of features, side by side on the same folds with the same seeds.

The output folder holds settings.yaml, run.json (versions), folds/ (the splits as CLAM writes them), for each head, fold
and seed runs/HEAD/fold_K_seed_S/ (metrics.csv, result.json, and model/, the trained head that `load_trained_head`
reads), and when all are finished predictions.csv, runs.csv, summary.json and heads.png.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch

from ....datasets.bags import BagData, Bags
from ....heads import AEM, build_head
from ....heads.ibmil import confounders_of
from ....heads.metrics import SCORES
from ....heads.survival import intervals_of, survival_cuts
from ....heads.trained_head import TrainedHead, load_trained_head, save_trained_head
from ....heads.training import BagTrainer, check_survival
from ....whole_files import write_atomically
from ...run.fit import Fit, fit, optimizer_arguments
from ...run.run_folder import RunFolder, open_run
from ...settings import HeadSettings, TrainMilSettings
from .cohort import HeadTraining, open_cohorts, plan_trainings
from .comparison import compare, print_tables, write_tables

__all__ = ["run"]

#: Seconds between checkpoints of a training; so much work at most is repeated after a stop.
SAVE_EVERY_S = 2.0


def run(settings: TrainMilSettings) -> int:
    """Train every head on every fold with every seed, or resume a stopped run; then compare the heads.

    Args:
        settings: see `TrainMilSettings`.

    Raises:
        ValueError: a setting or the data is wrong, or the output folder is refused (see `regard.tools.run.run_folder`).
        OSError: the output folder cannot be written.
    """
    with open_run(settings) as folder:
        summary = folder.summary or _train_and_compare(settings, folder)
    if folder.first:
        print_tables(summary)
    return 0


def _train_and_compare(settings: TrainMilSettings, folder: RunFolder) -> dict[str, Any]:
    cohorts = open_cohorts(settings)
    trainings = list(plan_trainings(settings, cohorts))
    _try_heads(settings, cohorts[0].bags)
    left = [training for training in trainings if not _is_finished(training)]
    if folder.first:
        for cohort in cohorts:
            cohort.write_folds(folder.path)
    for count, training in enumerate(left, 1):
        _train(settings, training, folder, f"{count}/{len(left)}")
    if not folder.first:
        return {}
    results = [json.loads((one.folder / "result.json").read_text(encoding="utf-8")) for one in trainings]
    summary = compare(settings, results, bags_per_seed=cohorts[0].per_seed)
    write_tables(folder.path, summary, results)
    folder.finish(summary)
    return summary


def _train(settings: TrainMilSettings, training: HeadTraining, folder: RunFolder, count: str) -> None:
    """Train and test one head on one fold with one seed, and write its result."""
    begin = time.monotonic()
    head, bags, fold = training.head, training.cohort.bags, training.fold
    training.folder.mkdir(parents=True, exist_ok=True)
    if folder.first:
        write_atomically(training.folder / "head.json", json.dumps(asdict(head), indent=1))
    torch.manual_seed(training.seed)
    model = _build(settings, training)
    data = BagData(
        bags,
        fold,
        batch_size=settings.batch_size,
        instances=settings.instances,
        weighted_sampling=settings.weighted_sampling,
        workers=settings.workers,
        seed=training.seed,
    )
    learner = BagTrainer(
        model,
        aem=None if head.aem is None else AEM(**asdict(head.aem)),
        class_weights=data.class_weights() if settings.class_weights == "balanced" else None,
        instance_labels=bags.instance_labels,
        **optimizer_arguments(settings.optimizer),
    )
    score = settings.score or SCORES[settings.task][0]
    monitor, mode = ("val_loss", "min") if settings.best_by == "loss" else (f"val_{score}", "max")
    fitted = fit(
        learner,
        data,
        training.folder,
        settings,
        monitor=monitor if fold.val else None,
        mode=mode,
        seed=training.seed,
        earliest_stop=settings.early_stop_from,
        save_every_s=SAVE_EVERY_S,
        limit_test=False,
    )
    if folder.first:
        _write_result(training, learner, fitted)
        name = f"{head.shown_name}, fold {training.fold_index}, seed {training.seed}"
        seconds = time.monotonic() - begin
        sys.stderr.write(f"{count}  {name}: {score} {learner.tested[score]:.3f}  ({seconds:.1f} s)\n")


def _build(settings: TrainMilSettings, training: HeadTraining) -> TrainedHead:
    """The head as its training starts."""
    head, cohort, fold = training.head, training.cohort, training.fold
    cuts: list[float] = []
    classes: Sequence[str] = cohort.bags.classes
    if settings.task == "survival":
        times, events = cohort.times(fold.train)
        cuts = survival_cuts(times, events, settings.intervals)
        edges = [f"{cut:g}" for cut in cuts]
        ranges = [f"{low} to {high}" for low, high in pairwise(edges)]
        classes = [f"before {edges[0]}", *ranges, f"from {edges[-1]}"]
    model = TrainedHead(
        head.name,
        cohort.bags.width,
        classes,
        _options(settings, head),
        task=settings.task,
        cuts=cuts,
        encoder=settings.encoder,
        standardised=settings.standardise,
    )
    if head.after is not None:
        first = load_trained_head(training.folder.parents[1] / head.after / training.folder.name / "model")
        with torch.no_grad():
            vectors = [first(cohort.bags.features(index)).features for index in fold.train]
        confounders = model.head.get_buffer("confounder_feat")
        confounders.copy_(confounders_of(vectors, count=len(confounders), seed=training.seed))
    if settings.standardise:
        model.mean, model.std = cohort.statistics(fold)
    return model


def _options(settings: TrainMilSettings, head: HeadSettings) -> dict[str, Any]:
    return head.options if settings.chunk is None else head.options | {"chunk": settings.chunk}


def _try_heads(settings: TrainMilSettings, bags: Bags) -> None:
    """Build each head and give it a bag of zeros, so that what does not fit is named before the first epoch.

    Raises:
        ValueError: a head or option is unknown, AEM has no attention to work on, or a head does not suit survival.
    """
    if settings.score is not None and settings.score not in SCORES[settings.task]:
        raise ValueError(f"--score {settings.score} is not available for {settings.task}")
    classes = settings.intervals if settings.task == "survival" else len(bags.classes)
    for head in settings.heads:
        name, options = head.shown_name, _options(settings, head)
        try:
            built = build_head(head.name, bags.width, classes, **options).eval()
            with torch.no_grad():
                output = built(torch.zeros(3, bags.width))
        except (TypeError, RuntimeError, AssertionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"the head {name} does not accept the options {options}: {reason}") from error
        except ValueError as error:
            raise ValueError(f"the head {name}: {error}") from error
        if head.aem is not None and output.attention is None:
            raise ValueError(
                f"the head {name} has no attention for AEM; leave aem out, or use abmil, clam_sb, dsmil or acmil"
            )
        if settings.task == "survival":
            check_survival(head.name, built)


def _is_finished(training: HeadTraining) -> bool:
    """Whether a training is finished.

    Raises:
        ValueError: its folder belongs to a head with other settings.
    """
    file = training.folder / "head.json"
    if file.is_file():
        before, now = json.loads(file.read_text(encoding="utf-8")), asdict(training.head)
        different = [
            f"{key}: {before.get(key)!r} there, {now[key]!r} here" for key in now if before.get(key) != now[key]
        ]
        if different:
            raise ValueError(
                f"{training.folder} holds another {training.head.shown_name} ({'; '.join(different)}); "
                "give this one another label"
            )
    return (training.folder / "result.json").is_file()


def _write_result(training: HeadTraining, learner: BagTrainer, fitted: Fit) -> None:
    """Write the trained head and its predictions; result.json last, which marks the training as finished."""
    bags, model = training.cohort.bags, learner.model
    trained = {"fold": training.fold_index, "seed": training.seed, "best_epoch": fitted.best_epoch, "data": bags.name}
    save_trained_head(model, training.folder / "model", training=trained)
    predictions = []
    for prediction in learner.predictions:
        bag = bags.bags[prediction.bag_index]
        truth: dict[str, Any] = {"label": bag.label}
        if model.task == "survival":
            interval = int(intervals_of(torch.tensor([float(bag.time or 0)]), model.cuts))
            truth = {"time": bag.time, "event": bool(bag.event), "interval": interval}
        predictions.append({"slide": bag.id, "patient": bag.patient, **truth, **prediction._asdict()})
    result = {
        "head": training.head.shown_name,
        "settings": asdict(training.head),
        "fold": training.fold_index,
        "seed": training.seed,
        "classes": model.classes,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "bags": {part: len(getattr(training.fold, part)) for part in ("train", "val", "test")},
        "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "metrics": learner.tested,
        "predictions": predictions,
    }
    write_atomically(training.folder / "result.json", json.dumps(result))
    (training.folder / "last.ckpt").unlink(missing_ok=True)
