from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from regard.datasets.bags import Bag, BagDataset, Bags, collate_bags, open_bags
from regard.datasets.bags.bag import InMemoryInstances
from regard.datasets.loader import EpochOrder, TrainLoader


def some_bags(*sizes: int) -> Bags:
    """The first feature of an instance is its index."""
    parts = [InMemoryInstances(np.arange(2.0 * size, dtype=np.float32).reshape(size, 2) / 2) for size in sizes]
    bags = [Bag(f"s{index}", f"s{index}", index % 2) for index in range(len(sizes))]
    return Bags(bags, parts, ["normal", "tumour"], name="toy")


def indices(features: torch.Tensor) -> list[int]:
    return features[:, 0].long().tolist()


def test_all_instances_unless_told_otherwise() -> None:
    features, target, index = BagDataset(some_bags(3, 5))[1]
    assert (indices(features), target, index) == ([0, 1, 2, 3, 4], 1, 1)


@pytest.mark.parametrize(("instances", "drawn"), [(7, 7), (1, 1), (100, 40), (0.5, 20), (0.51, 20), (0.001, 1)])
def test_so_many_different_instances_are_drawn_in_their_order(instances: float, drawn: int) -> None:
    rows = indices(BagDataset(some_bags(40), instances=instances)[0][0])
    assert len(rows) == drawn
    assert rows == sorted(set(rows))


def test_draws_depend_on_seed_epoch_and_bag_alone() -> None:
    bags = some_bags(40, 40)
    data = BagDataset(bags, instances=10, seed=5)
    first = [indices(data[index][0]) for index in (0, 1)]
    assert first[0] != first[1]
    data.set_epoch(1)
    assert indices(data[0][0]) != first[0]
    data.set_epoch(0)
    assert indices(data[0][0]) == first[0]
    assert indices(BagDataset(bags, instances=10, seed=6)[0][0]) != first[0]


def test_every_instance_is_drawn_equally_often() -> None:
    data = BagDataset(some_bags(10), instances=3)
    counts = np.zeros(10)
    for epoch in range(600):
        data.set_epoch(epoch)
        counts[indices(data[0][0])] += 1
    assert abs(counts - 180).max() < 5 * np.sqrt(600 * 0.3 * 0.7)


@pytest.mark.parametrize("instances", [0, -1, 1.5, float("nan")])
def test_numbers_of_instances_that_are_none_are_explained(instances: float) -> None:
    with pytest.raises(ValueError, match="instances is"):
        BagDataset(some_bags(3), instances=instances)


def test_a_bag_that_is_not_there_ends_an_iteration() -> None:
    assert len(list(BagDataset(some_bags(3, 2)))) == 2
    with pytest.raises(IndexError, match="2 bags, none has the number -1"):
        BagDataset(some_bags(3, 2))[-1]


def test_bags_alike_need_no_mask() -> None:
    features, valid, labels, indices = collate_bags(list(BagDataset(some_bags(3, 3))))
    assert features.shape == (2, 3, 2)
    assert valid is None
    assert labels.tolist() == [0, 1]
    assert indices.tolist() == [0, 1]


def test_shorter_bags_are_filled_up_and_masked() -> None:
    bags = some_bags(1, 4, 2)
    features, valid, _, _ = collate_bags(list(BagDataset(bags)))
    assert valid is not None
    assert valid.sum(dim=1).tolist() == [1, 4, 2]
    for index in range(3):
        torch.testing.assert_close(features[index][valid[index]], bags.features(index))
    assert not features[~valid].any()


def test_one_bag_is_not_copied() -> None:
    bag = torch.ones(5, 2, dtype=torch.float16)
    features, valid, _, _ = collate_bags([(bag, 1, 0)])
    assert features.data_ptr() == bag.data_ptr()
    assert features.shape == (1, 5, 2)
    assert valid is None


def test_bags_of_two_types_meet_in_the_more_exact() -> None:
    features, _, _, _ = collate_bags([(torch.ones(2, 3).half(), 1, 0), (torch.ones(4, 3), 0, 1)])
    assert features.dtype == torch.float32


def test_targets_of_survival_are_times_and_events() -> None:
    part = InMemoryInstances(np.ones((2, 3), np.float32))
    cohort = Bags([Bag("a", "a", None, 3.5, True), Bag("b", "b", None, 7.0, False)], [part, part], [], name="toy")
    _, _, targets, _ = collate_bags(list(BagDataset(cohort)))
    assert targets[0].tolist() == [3.5, 7.0]
    assert targets[1].tolist() == [True, False]


def test_bags_without_labels_have_no_targets() -> None:
    part = InMemoryInstances(np.ones((2, 3), np.float32))
    assert collate_bags(list(BagDataset(Bags([Bag("a", "a")], [part], [], name="toy"))))[2] is None


def batches(folder: Path, epoch: int, **options: Any) -> list[tuple[list[int], float]]:
    data = BagDataset(open_bags(folder), instances=3, seed=1)
    order = EpochOrder(len(data), batch_size=2, seed=1)
    order.set_epoch(epoch)
    loader = TrainLoader(data, batch_size=2, sampler=order, collate_fn=collate_bags, **options)
    return [(indices.tolist(), float(features.sum())) for features, _, _, indices in loader]


def test_batches_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(6):
        with h5py.File(tmp_path / f"s{index}.h5", "w") as file:
            file.create_dataset("features", data=rng.random((9 + index, 4), np.float32), chunks=(1, 4))
    plain = batches(tmp_path, 0)
    assert len(plain) == 3
    assert batches(tmp_path, 0, num_workers=2) == plain
    assert batches(tmp_path, 1) != plain


def test_a_bad_slide_is_named_from_within_a_worker(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s0.h5", "w") as file:
        file["features"] = np.full((3, 4), np.nan, np.float32)
    loader = DataLoader(BagDataset(open_bags(tmp_path)), collate_fn=collate_bags, num_workers=1)
    with pytest.raises(ValueError, match="slide s0: 3 of 3 instances"):
        next(iter(loader))
