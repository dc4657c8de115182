from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from regard.datasets.bags import Bag, Bags, Fold, make_folds, open_bags
from regard.datasets.bags.bag import InMemoryInstances
from regard.datasets.bags.folds import check_fold

ONE = InMemoryInstances(np.ones((1, 2), np.float32))


def bags_of(kinds: Sequence[tuple[str, int]]) -> Bags:
    bags = [Bag(f"s{index}", patient, label) for index, (patient, label) in enumerate(kinds)]
    return Bags(bags, [ONE] * len(bags), ["normal", "tumour"], name="toy")


# 40 patients with one to four slides; a quarter has tumours.
MANY = bags_of([(f"p{index}", int(index % 4 == 0)) for index in range(40) for _ in range(1 + index * 7 % 4)])


def test_tests_are_disjoint_and_cover_everything_in_each_repeat() -> None:
    folds = make_folds(MANY, 5, seed=1, repeats=3)
    assert len(folds) == 15
    for repeat in range(3):
        tests = [index for fold in folds[5 * repeat : 5 * repeat + 5] for index in fold.test]
        assert sorted(tests) == list(range(len(MANY)))
    assert folds[0] != folds[5]


def test_every_part_of_a_fold_is_disjoint_also_in_patients() -> None:
    for fold in make_folds(MANY, 4, val_share=0.2):
        assert sorted(fold.train + fold.val + fold.test) == list(range(len(MANY)))
        patients = [{MANY.bags[index].patient for index in part} for part in (fold.train, fold.val, fold.test)]
        assert not patients[0] & patients[1]
        assert not patients[0] & patients[2]
        assert not patients[1] & patients[2]


def test_parts_have_their_share_of_every_class() -> None:
    share = np.mean([bag.label for bag in MANY.bags])
    for fold in make_folds(MANY, 5, val_share=0.2):
        for part in (fold.train, fold.val, fold.test):
            assert abs(np.mean([MANY.bags[index].label for index in part]) - share) < 0.15
    sizes = [len(fold.test) for fold in make_folds(MANY, 5)]
    assert max(sizes) - min(sizes) <= 4  # slides; a patient has up to four


def test_folds_depend_on_the_seed_alone() -> None:
    assert make_folds(MANY, seed=3) == make_folds(MANY, seed=3)
    assert make_folds(MANY, seed=3) != make_folds(MANY, seed=4)


def test_more_repeats_do_not_change_the_first() -> None:
    assert make_folds(MANY, repeats=3)[:5] == make_folds(MANY)


def test_without_validation_nothing_is_held_out() -> None:
    assert all(not fold.val for fold in make_folds(MANY, val_share=0.0))


def test_survival_is_stratified_by_the_event() -> None:
    bags = [Bag(f"s{position}", f"p{position}", None, float(position), position % 5 == 0) for position in range(50)]
    cohort = Bags(bags, [ONE] * 50, [], name="toy")
    for fold in make_folds(cohort):
        assert sum(bool(bags[index].event) for index in fold.test) == 2
    check_fold(cohort, Fold(list(range(40)), [], list(range(40, 50))), "here")
    with pytest.raises(ValueError, match="here: the part 'test' has no event"):
        check_fold(cohort, Fold(list(range(40)), [], [41, 42]), "here")


def test_bags_without_labels_are_divided_too() -> None:
    cohort = Bags([Bag(f"s{index}", f"p{index}") for index in range(10)], [ONE] * 10, [], name="toy")
    assert [len(fold.test) for fold in make_folds(cohort)] == [2] * 5


def test_a_patient_with_two_labels_is_told_and_stays_in_one_part(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [(f"p{index}", index % 2) for index in range(20)]
    cohort = bags_of([*pairs, ("p3", 0)])
    with caplog.at_level(logging.WARNING):
        folds = make_folds(cohort, val_share=0.0)
    assert "differ in label: p3 (s3: the label 'tumour', s20: the label 'normal')" in caplog.text
    assert all((3 in fold.test) == (20 in fold.test) for fold in folds)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"folds": 1}, "folds is 1"),
        ({"repeats": 0}, "repeats 0"),
        ({"seed": -1}, "seed -1"),
        ({"val_share": 1.0}, r"val_share 1\.0"),
        ({"folds": 11}, "10 patients of toy have the label 'tumour', too few for 11 folds"),
        ({"folds": 41}, "toy has 40 patients, too few for 41 folds"),
    ],
)
def test_what_cannot_be_divided_is_explained(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_folds(MANY, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fold", "complaint"),
    [
        (Fold([0, 2], [], [1, 3]), r"here: the part 'train' lacks the label 'tumour'"),
        (Fold([0, 1], [2], [3, 4]), r"the part 'val' lacks the label 'tumour'"),
        (Fold([0, 1], [], [3]), r"the part 'test' lacks the label 'normal'"),
        (Fold([0, 1], [], []), r"the part 'test' is empty"),
    ],
)
def test_a_part_with_one_class_only_is_explained(fold: Fold, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_fold(bags_of([(f"p{index}", index % 2) for index in range(6)]), fold, "here")


def test_real_bags_are_divided() -> None:
    folds = make_folds(open_bags("ucsb"), 5, seed=0, val_share=0.2, repeats=2)
    assert len(folds) == 10
    assert {len(fold.test) for fold in folds} == {11, 12}
