"""Folds for cross-validation: no patient in two parts, every part with its share of every class."""

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
    """Divide the bags for cross-validation.

    The test parts of a repeat are disjoint, and together they are all bags. All bags of a patient are in one part.
    The parts have the classes in the same proportion as far as whole patients go; for survival those with and without
    the event. Patients whose slides differ in label are a kind of their own in this, which is said.

    Args:
        bags: what to divide.
        folds: parts to test on in turn, 2 or more.
        seed: 0 or more; the same seed and bags give the same folds.
        val_share: share of the patients beside the test part that choose the epoch, 0 for none, below 1. At least one
            patient of each class that has two there.
        repeats: how often the whole is done, each time with another division; `repeats * folds` folds.

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
    kinds = _kinds(bags, patients)
    if len(patients) < folds:
        raise ValueError(f"{bags.name} has {len(patients)} patients, too few for {folds} folds")
    for place, text in enumerate(_outcomes(bags)):
        having = sum(any(_outcome(bags, index) == place for index in own) for own in patients.values())
        if 0 < having < folds and text != _NO_EVENT:
            raise ValueError(
                f"{having} patients of {bags.name} have {text}, too few for {folds} folds: "
                "some test part would have none; use fewer folds, or join classes"
            )
    made = []
    for repeat in range(repeats):
        parts = _deal(patients, kinds, folds, np.random.default_rng([seed, repeat]))
        for turn, part in enumerate(parts):
            rest = [patient for patient in patients if patient not in part]
            held = _hold_out(rest, kinds, val_share, np.random.default_rng([seed, repeat, turn]))
            train = [patient for patient in rest if patient not in held]
            fold = Fold(*(sorted(index for one in own for index in patients[one]) for own in (train, held, part)))
            check_fold(bags, fold, f"fold {turn} of {bags.name}")
            made.append(fold)
    return made


def check_fold(bags: Bags, fold: Fold, where: str) -> None:
    """See that something can be learned from a fold, and measured.

    Args:
        bags: of the fold.
        fold: its training part needs every class (of survival: an event), the others two if they are not empty.
        where: to say in the message.

    Raises:
        ValueError: a part lacks that, or there is nothing to train or test on.
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
                raise ValueError(f"{where}: in the part {name!r} nothing happened (all are censored); use fewer folds")
        elif len(there) < (len(every) if name == "train" else min(2, len(every))):
            missing = ", ".join(outcomes[place] for place in sorted(every - there))
            raise ValueError(
                f"{where}: the part {name!r} lacks {missing}; use fewer folds or a larger share, or add slides"
            )


def _outcomes(bags: Bags) -> Sequence[str]:
    """In words, by their number."""
    if bags.bags[0].event is not None:
        return [_NO_EVENT, "an event"]
    return [f"the label {name!r}" for name in bags.classes]


def _outcome(bags: Bags, index: int) -> int:
    bag = bags.bags[index]
    if bag.event is not None:
        return int(bag.event)
    return _UNKNOWN if bag.label is None else bag.label


def _kinds(bags: Bags, patients: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """Patient -> the outcomes of its bags."""
    outcomes = [*_outcomes(bags), "no label"]
    kinds = {}
    mixed = []
    for patient, own in patients.items():
        kinds[patient] = tuple(sorted({_outcome(bags, index) for index in own}))
        if len(kinds[patient]) > 1:
            labels = ", ".join(f"{bags.bags[index].id}: {outcomes[_outcome(bags, index)]}" for index in own[:4])
            mixed.append(f"{patient} ({labels}{', ...' if len(own) > 4 else ''})")
    if mixed:
        more = f" and {len(mixed) - 3} more" if len(mixed) > 3 else ""
        _log.warning("patients of %s whose slides differ in label: %s%s", bags.name, "; ".join(mixed[:3]), more)
    return kinds


def _deal(
    patients: dict[str, list[int]], kinds: dict[str, tuple[int, ...]], parts: int, rng: np.random.Generator
) -> list[set[str]]:
    """Patients kind by kind, those with many bags first, each to the part that has fewest bags of the kind."""
    dealt: list[set[str]] = [set() for _ in range(parts)]
    total = np.zeros(parts)
    names = list(patients)
    order = [names[place] for place in rng.permutation(len(names))]
    for kind in sorted(set(kinds.values())):
        own = np.zeros(parts)
        members = sorted((one for one in order if kinds[one] == kind), key=lambda one: -len(patients[one]))
        for patient in members:
            part = int(np.lexsort((total, own))[0])
            dealt[part].add(patient)
            own[part] += len(patients[patient])
            total[part] += len(patients[patient])
    return dealt


def _hold_out(names: list[str], kinds: dict[str, tuple[int, ...]], share: float, rng: np.random.Generator) -> set[str]:
    held: set[str] = set()
    for kind in sorted({kinds[name] for name in names}) if share else ():
        members = [name for name in names if kinds[name] == kind]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held.update(members[place] for place in rng.permutation(len(members))[:count])
    return held
