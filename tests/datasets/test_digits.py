import numpy as np

from regard.datasets.digits import open_digits


def test_no_digit_is_in_two_splits() -> None:
    indices = np.concatenate([part.images.indices for part in open_digits().values()])
    assert sorted(indices) == list(range(1797))


def test_every_split_has_all_ten_classes_in_proportion() -> None:
    for part in open_digits().values():
        counts = np.bincount(part.targets, minlength=10) / len(part)
        assert counts.min() > 0.08
        assert counts.max() < 0.12


def test_a_digit_is_eight_by_eight_grey_of_full_range() -> None:
    train = open_digits()["train"]
    image, target = train[0]
    assert (image.mode, image.size) == ("L", (8, 8))
    assert 0 <= target <= 9
    assert train.images.items.max() == 255
