import numpy as np
import pytest

from regard.datasets.splits import stratified_split


def test_the_parts_are_all_images_once() -> None:
    kept, held = stratified_split(np.arange(20) % 3, 0.3, seed=0)
    assert sorted([*kept, *held]) == list(range(20))
    assert len(held) == 6


def test_classes_keep_their_proportion() -> None:
    targets = np.repeat([0, 1, 2], [100, 50, 10])
    _, held = stratified_split(targets, 0.1, seed=3)
    assert np.bincount(targets[held]).tolist() == [10, 5, 1]


def test_one_image_of_each_class_is_kept() -> None:
    targets = np.array([0, 1, 1, 2])
    kept, _ = stratified_split(targets, 1, seed=0)
    assert set(targets[kept]) == {0, 1, 2}


def test_the_seed_decides_the_parts() -> None:
    targets = np.zeros(100, dtype=int)
    first, again, other = (stratified_split(targets, 0.5, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_images_of_several_labels_are_split_by_combination() -> None:
    targets = np.repeat(np.array([[0, 1], [1, 1]], dtype=np.float32), 10, axis=0)
    _, held = stratified_split(targets, 0.2, seed=0)
    assert (held < 10).sum() == 2


@pytest.mark.parametrize("held", [0.0, 1.0, -0.5, 1.5, 0, 8])
def test_an_impossible_part_is_refused(held: float) -> None:
    with pytest.raises(ValueError, match="cannot hold out"):
        stratified_split(np.arange(10) % 3, held, seed=0)
