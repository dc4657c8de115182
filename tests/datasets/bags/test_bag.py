from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from regard.datasets.bags import Bag, Bags
from regard.datasets.bags.bag import InMemoryInstances

RNG = np.random.default_rng(0)


def held(count: int, width: int = 4, path: str = "memory") -> InMemoryInstances:
    return InMemoryInstances(RNG.standard_normal((count, width)).astype(np.float32), path)


def some_bags(*sizes: int) -> Bags:
    bags = [Bag(f"slide_{index}", f"patient_{index}", index % 2) for index in range(len(sizes))]
    return Bags(bags, [held(size) for size in sizes], ["normal", "tumour"], name="toy")


def test_a_subset_has_its_bags_in_the_order_asked_for() -> None:
    bags = some_bags(1, 2, 3)
    part = bags.subset([2, 0])
    assert [bag.id for bag in part.bags] == ["slide_2", "slide_0"]
    assert [part.size(0), part.size(1)] == [3, 1]
    torch.testing.assert_close(part.features(0), bags.features(2))
    assert part.classes == bags.classes


def test_an_empty_subset_is_explained() -> None:
    with pytest.raises(ValueError, match="toy has no bags"):
        some_bags(1, 2).subset([])


def test_bags_can_be_pickled() -> None:
    bags = some_bags(1, 2)
    again = pickle.loads(pickle.dumps(bags))
    torch.testing.assert_close(again.features(1), bags.features(1))
    assert again.bags == bags.bags


def test_writing_into_features_does_not_change_the_bag() -> None:
    bags = some_bags(2)
    before = bags.features(0).clone()
    bags.features(0).zero_()
    torch.testing.assert_close(bags.features(0), before)


def test_some_rows_only() -> None:
    bags = some_bags(5)
    torch.testing.assert_close(bags.features(0, np.array([1, 4])), bags.features(0)[[1, 4]])


def test_no_bags_at_all_are_explained() -> None:
    with pytest.raises(ValueError, match="toy has no bags"):
        Bags([], [], [], name="toy")


def test_an_empty_bag_is_named_with_its_file() -> None:
    with pytest.raises(ValueError, match=r"slide b: here/b\.h5 holds no instances"):
        Bags([Bag("a", "a"), Bag("b", "b")], [held(2), held(0, path="here/b.h5")], [], name="toy")


def test_a_bag_of_another_width_is_named_with_its_file() -> None:
    with pytest.raises(ValueError, match=r"slide b: the features in b\.h5 are 5 wide, but those of a in a\.h5 are 4"):
        Bags([Bag("a", "a"), Bag("b", "b")], [held(2, 4, "a.h5"), held(2, 5, "b.h5")], [], name="toy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_that_are_no_numbers_are_named_with_slide_and_instance(value: float, dtype: type) -> None:
    values = np.ones((9, 4), dtype)
    values[[6, 7], 2] = value
    bags = Bags([Bag("a", "a")], [InMemoryInstances(values, "a.h5")], [], name="toy")
    with pytest.raises(ValueError, match=r"slide a: 2 of 9 instances in a\.h5 have .* first is instance 6"):
        bags.features(0)
    with pytest.raises(ValueError, match=r"1 of 2 instances in a\.h5 have .* first is instance 7"):
        bags.features(0, np.array([0, 7]))
    assert bags.features(0, np.array([0, 8])).shape == (2, 4)


def test_a_file_that_has_changed_is_explained() -> None:
    bags = some_bags(3)
    bags._instances[0] = held(2, path="a.h5")
    with pytest.raises(ValueError, match=r"slide slide_0: a\.h5 has changed"):
        bags.features(0)
