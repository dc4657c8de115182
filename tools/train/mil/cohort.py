"""Bags with their cross-validation folds, and the trainings on them: one for each fold, seed and head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ....datasets.bags import Bags, Fold, make_folds, open_bags, read_folds, write_folds
from ...settings import HeadSettings, TrainMilSettings

__all__ = ["Cohort", "HeadTraining", "open_cohorts", "plan_trainings"]


@dataclass
class Cohort:
    """Bags and their folds.

    Attributes:
        bags: all of them.
        folds: with indices in `bags`.
        seeds: of the trainings on them.
        per_seed: whether each seed has its own bags, as rendered ones have.
    """

    bags: Bags
    folds: list[Fold]
    seeds: list[int]
    per_seed: bool = False
    _known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def statistics(self, fold: Fold) -> tuple[Tensor, Tensor]:
        """Mean and std of the features of all training instances; a constant feature has std 1."""
        key = id(fold)
        if key not in self._known:
            self._known = {key: _mean_and_std(self.bags, fold.train)}
        mean, std = self._known[key]
        return mean.clone(), std.clone()

    def times(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Times and events of some bags."""
        bags = [self.bags.bags[index] for index in indices]
        return torch.tensor([float(bag.time or 0) for bag in bags]), torch.tensor([bool(bag.event) for bag in bags])

    def write_folds(self, out: Path) -> None:
        """Write the folds as CLAM does."""
        folder = out / "folds" / (f"seed_{self.seeds[0]}" if self.per_seed else "")
        folder.mkdir(parents=True, exist_ok=True)
        write_folds(folder, self.bags, self.folds)


@dataclass(frozen=True)
class HeadTraining:
    """One head on one fold with one seed.

    Attributes:
        head: its settings.
        cohort: its bags.
        fold_index: of the fold, from 0.
        seed: of the training.
        folder: of its results.
    """

    head: HeadSettings
    cohort: Cohort
    fold_index: int
    seed: int
    folder: Path

    @property
    def fold(self) -> Fold:
        """Its training, validation and test bags."""
        return self.cohort.folds[self.fold_index]


def open_cohorts(settings: TrainMilSettings) -> list[Cohort]:
    """Open the bags with their folds: one cohort for all seeds, or of rendered bags one for each.

    Raises:
        ValueError: the data, table or folds are wrong, or there are no validation bags for early stopping.
        OSError: a file cannot be read.
    """
    bags = _open(settings, settings.seeds[0])
    if bags.fold is not None:
        others = [_open(settings, seed) for seed in settings.seeds[1:]]
        cohorts = [
            Cohort(rendered, [rendered.fold], [seed], per_seed=True)
            for seed, rendered in zip(settings.seeds, [bags, *others], strict=True)
            if rendered.fold is not None
        ]
    elif isinstance(settings.folds, int):
        folds = make_folds(
            bags, folds=settings.folds, seed=settings.seed, val_share=settings.val_share, repeats=settings.repeats
        )
        cohorts = [Cohort(bags, folds, settings.seeds)]
    else:
        cohorts = [Cohort(bags, read_folds(settings.folds, bags), settings.seeds)]
    if settings.early_stop is not None and not all(fold.val for cohort in cohorts for fold in cohort.folds):
        raise ValueError("--early_stop watches validation bags, and there are none; give a --val_share above 0")
    return cohorts


def plan_trainings(settings: TrainMilSettings, cohorts: Sequence[Cohort]) -> Iterator[HeadTraining]:
    """All trainings in their order: heads side by side, fold by fold."""
    for cohort in cohorts:
        for index in range(len(cohort.folds)):
            for seed in cohort.seeds:
                for head in settings.heads:
                    folder = Path(settings.out, "runs", head.shown_name, f"fold_{index}_seed_{seed}")
                    yield HeadTraining(head, cohort, index, seed, folder)


def _open(settings: TrainMilSettings, seed: int) -> Bags:
    bags = open_bags(
        settings.data,
        table=settings.table,
        label=settings.label,
        classes=settings.classes,
        task=settings.task,
        seed=seed,
    )
    survival = settings.task == "survival"
    unlabelled = [
        bag.id for bag in bags.bags if (bag.time is None or bag.event is None if survival else bag.label is None)
    ]
    if unlabelled:
        raise ValueError(
            f"{len(unlabelled)} of {len(bags)} bags in {bags.name} lack {'time and event' if survival else 'label'}; "
            f"the first is {unlabelled[0]}; give --table, a CSV with the columns slide_id, case_id and "
            + ("time, event" if survival else settings.label)
        )
    return bags


def _mean_and_std(bags: Bags, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Over all instances of some bags in one pass, joining the moments of blocks, which keeps rounding errors small."""
    count = 0
    mean = squares = torch.zeros(bags.width, dtype=torch.float64)
    for index in indices:
        for block in bags.features(index).split(8192):
            rows = block.double()
            rows_mean = rows.mean(dim=0)
            total, step = count + len(rows), rows_mean - mean
            squares = squares + (rows - rows_mean).square().sum(dim=0) + step.square() * (count * len(rows) / total)
            mean, count = mean + step * (len(rows) / total), total
    std = (squares / count).sqrt()
    constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
    return mean.float(), std.masked_fill(constant, 1.0).float()
