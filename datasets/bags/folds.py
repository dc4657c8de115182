"""Folds for cross-validation, grouped by patient and stratified by class."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from .bag import Bags, Fold

__all__ = ["check_fold", "make_folds"]

_NO_EVENT = "no event"
_UNKNOWN = -1
_log = logging.getLogger(__name__)


def make_folds(bags: Bags, folds: int = 5, seed: int = 0, val_share: float = 0.1, repeats: int = 1) -> list[Fold]:
    """Split the bags for cross-validation.

    The test parts of a repeat are disjoint, and together they are all bags. All bags of a patient are in one part.
    Parts are stratified by class as far as whole patients allow; for survival by event. Patients whose slides differ in
    label form strata of their own, with a warning.

    Args:
        bags: the bags to split.
        folds: number of folds, 2 or more.
        seed: 0 or more; the same seed and bags give the same folds.
        val_share: share of the other patients that selects the epoch, 0 for none, below 1. At least one patient of
            each class that has two there.
        repeats: number of repeats, each with another split; they give `repeats * folds` folds.

    Raises:
        ValueError: a number out of range, fewer patients of a class than folds, or a part with one class only.

    Example:
        >>> from .sources import open_bags
        >>> [len(fold.test) for fold in make_folds(open_bags("ucsb"))]
        [12, 12, 12, 11, 11]
    """
    if folds < 2 or repeats < 1 or seed < 0 or not 0 <= val_share < 1:
        raise ValueError(
            f"folds is {folds}, repeats {repeats}, seed {seed} and val_share {val_share}; "
            "expected at least 2, 1 and 0, and a share from 0 to below 1"
        )
    patients: dict[str, list[int]] = {}
    for index, bag in enumerate(bags.bags):
        patients.setdefault(bag.patient, []).append(index)
    strata = _strata(bags, patients)
    if len(patients) < folds:
        raise ValueError(f"{bags.name} has {len(patients)} patients, too few for {folds} folds")
    for outcome, text in enumerate(_outcomes(bags)):
        having = sum(any(_outcome(bags, index) == outcome for index in own) for own in patients.values())
        if 0 < having < folds and text != _NO_EVENT:
            raise ValueError(
                f"{having} patients of {bags.name} have {text}, too few for {folds} folds: "
                "some test part would have none; use fewer folds, or merge classes"
            )
    made = []
    for repeat in range(repeats):
        parts = _deal(patients, strata, folds, np.random.default_rng([seed, repeat]))
        for turn, part in enumerate(parts):
            rest = [patient for patient in patients if patient not in part]
            held = _hold_out(rest, strata, val_share, np.random.default_rng([seed, repeat, turn]))
            train = [patient for patient in rest if patient not in held]
            fold = Fold(*(sorted(index for one in own for index in patients[one]) for own in (train, held, part)))
            check_fold(bags, fold, f"fold {turn} of {bags.name}")
            made.append(fold)
    return made


def check_fold(bags: Bags, fold: Fold, where: str) -> None:
    """Check that a fold can be trained and evaluated on.

    Args:
        bags: the bags of the fold.
        fold: its training part needs every class (for survival: an event), the others two if they are not empty.
        where: description of the fold, for messages.

    Raises:
        ValueError: a part lacks classes or events, or there is nothing to train or test on.
    """
    outcomes = _outcomes(bags)
    every = {_outcome(bags, index) for index in range(len(bags))} - {_UNKNOWN}
    for name, part in (("train", fold.train), ("val", fold.val), ("test", fold.test)):
        if not part and name != "val":
            raise ValueError(f"{where}: the part {name!r} is empty")
        there = {_outcome(bags, index) for index in part} - {_UNKNOWN}
        if not part or not every:
            continue
        if bags.bags[part[0]].event is not None:
            if 1 not in there:
                raise ValueError(f"{where}: the part {name!r} has no event (all are censored); use fewer folds")
        elif len(there) < (len(every) if name == "train" else min(2, len(every))):
            missing = ", ".join(outcomes[outcome] for outcome in sorted(every - there))
            raise ValueError(
                f"{where}: the part {name!r} lacks {missing}; use fewer folds or a larger share, or add slides"
            )


def _outcomes(bags: Bags) -> Sequence[str]:
    """Describe the outcomes, by their number."""
    if bags.bags[0].event is not None:
        return [_NO_EVENT, "an event"]
    return [f"the label {name!r}" for name in bags.classes]


def _outcome(bags: Bags, index: int) -> int:
    bag = bags.bags[index]
    if bag.event is not None:
        return int(bag.event)
    return _UNKNOWN if bag.label is None else bag.label


def _strata(bags: Bags, patients: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """Map each patient to the outcomes of its bags."""
    outcomes = [*_outcomes(bags), "no label"]
    strata = {}
    mixed = []
    for patient, own in patients.items():
        strata[patient] = tuple(sorted({_outcome(bags, index) for index in own}))
        if len(strata[patient]) > 1:
            labels = ", ".join(f"{bags.bags[index].id}: {outcomes[_outcome(bags, index)]}" for index in own[:4])
            mixed.append(f"{patient} ({labels}{', ...' if len(own) > 4 else ''})")
    if mixed:
        more = f" and {len(mixed) - 3} more" if len(mixed) > 3 else ""
        _log.warning("patients of %s whose slides differ in label: %s%s", bags.name, "; ".join(mixed[:3]), more)
    return strata


def _deal(
    patients: dict[str, list[int]], strata: dict[str, tuple[int, ...]], parts: int, rng: np.random.Generator
) -> list[set[str]]:
    """Assign patients by stratum, those with many bags first, to the part with the fewest bags of the stratum."""
    dealt: list[set[str]] = [set() for _ in range(parts)]
    total = np.zeros(parts)
    names = list(patients)
    order = [names[index] for index in rng.permutation(len(names))]
    for stratum in sorted(set(strata.values())):
        own = np.zeros(parts)
        members = sorted((one for one in order if strata[one] == stratum), key=lambda one: -len(patients[one]))
        for patient in members:
            part = int(np.lexsort((total, own))[0])
            dealt[part].add(patient)
            own[part] += len(patients[patient])
            total[part] += len(patients[patient])
    return dealt


def _hold_out(names: list[str], strata: dict[str, tuple[int, ...]], share: float, rng: np.random.Generator) -> set[str]:
    held: set[str] = set()
    for stratum in sorted({strata[name] for name in names}) if share else ():
        members = [name for name in names if strata[name] == stratum]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held.update(members[index] for index in rng.permutation(len(members))[:count])
    return held
