import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from regard.datasets.torchvision_sets import TORCHVISION_SETS, open_torchvision, parse_options

FAKE = "FakeData:size=6,image_size=(3, 8, 10),num_classes=3"


def test_fake_data_has_images_and_labels() -> None:
    train = open_torchvision(FAKE)["train"]
    assert (len(train), train.classes) == (6, ["0", "1", "2"])
    assert train[0][0].size == (10, 8)
    assert [train[index][1] for index in range(6)] == train.targets.tolist()


def test_a_set_of_torchvision_can_be_pickled() -> None:
    train = open_torchvision(FAKE)["train"]
    assert pickle.loads(pickle.dumps(train)).targets.tolist() == train.targets.tolist()


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_torchvision_has_every_set_that_is_listed(name: str) -> None:
    assert hasattr(torchvision.datasets, name)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'CIFAR10'"):
        open_torchvision("cifar10")


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(ValueError, match="no argument 'sise'; it has size"):
        open_torchvision("FakeData:sise=3")


def test_a_bad_value_is_explained() -> None:
    with pytest.raises(ValueError, match="does not accept these arguments"):
        open_torchvision("EMNIST:split=words", root="nowhere")


@pytest.mark.parametrize("name", ["CIFAR10", "EMNIST:split=letters", "USPS", "SVHN", "Food101"])
def test_a_set_that_is_not_there_says_where_to_put_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"is not in {tmp_path}.*Allow the download, or put its files into"):
        open_torchvision(name, root=tmp_path)


@pytest.mark.parametrize("name", ["ImageNet", "StanfordCars", "FER2013"])
def test_a_set_that_cannot_be_downloaded_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be downloaded automatically"):
        open_torchvision(name, root=tmp_path)


class Stub(torchvision.datasets.VisionDataset):
    """Stands for a set with the argument `split`."""

    known = ("train", "trainval", "val", "test")

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in self.known:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {self.known}.")
        self.split = split
        self.classes = ["cat", "dog"]
        self._labels = [None, None] if split == "test" else [0, 1]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Image.Image, int | None]:
        return Image.fromarray(np.zeros((4, 4), np.uint8)), self._labels[index]


def test_the_splits_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "Food101", Stub)
    found = open_torchvision("Food101")
    assert list(found) == ["train", "val"]  # the test split has no labels
    assert found["train"].images.source.split == "train"  # and not "trainval", which has the images of "val"
    assert found["val"].classes == ["cat", "dog"]


def test_a_set_with_the_argument_train_has_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair(Stub):
        def __init__(self, root: str, train: bool = True) -> None:
            super().__init__(root, "train" if train else "val")

    monkeypatch.setattr(torchvision.datasets, "MNIST", Pair)
    assert list(open_torchvision("MNIST")) == ["train", "test"]


@pytest.mark.parametrize("text", ["3", "a=", "a=b()", "**x", "a=1)+f("])
def test_options_that_are_no_plain_data_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read the options"):
        parse_options(text)
