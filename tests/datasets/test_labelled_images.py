import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from regard.datasets.image_reading import UnreadableImageError
from regard.datasets.labelled_images import LabelledImages


def test_arrays_tensors_and_pillow_images_are_all_images() -> None:
    array = np.full((4, 6, 3), 7, dtype=np.uint8)
    tensor = torch.full((3, 4, 6), 7, dtype=torch.uint8)
    images = LabelledImages([array, tensor, Image.fromarray(array)], [0, 0, 0], ["a"])
    assert all(np.array_equal(np.asarray(images[index][0]), array) for index in range(3))


def test_a_grey_array_with_a_channel_is_an_image() -> None:
    images = LabelledImages(np.zeros((1, 4, 6, 1), dtype=np.uint8), [0], ["a"], channels=1)
    assert images[0][0].size == (6, 4)


def test_several_labels_come_as_a_float_row() -> None:
    images = LabelledImages(np.zeros((2, 4, 4), np.uint8), [[1, 0, 1], [0, 0, 0]], ["a", "b", "c"])
    assert images.multi_label
    torch.testing.assert_close(images[0][1], torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ([0], "2 images but 1"),
        ([0, 2], "do not fit 2 classes"),
        ([-1, 0], "do not fit"),
        ([[1], [0]], "1 columns"),
        ([[2, 0], [0, 0]], "0 or 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LabelledImages(np.zeros((2, 4, 4), np.uint8), targets, ["a", "b"])


def test_a_subset_of_a_subset_points_into_the_whole() -> None:
    whole = LabelledImages([f"{index}.png" for index in range(6)], [0, 1] * 3, ["a", "b"])
    part = whole.subset(np.array([5, 3, 1])).subset(np.array([0, 2]))
    assert [part.name(0), part.name(1)] == ["5.png", "1.png"]
    assert part.targets.tolist() == [1, 1]
    assert part.images.items is whole.images


def test_a_view_leaves_the_images_alone() -> None:
    images = LabelledImages(np.zeros((1, 4, 6), np.uint8), [0], ["a"], channels=1)
    assert images.viewed(lambda image: image.size, 3)[0][0] == (6, 4)
    assert images.transform is None
    assert images.channels == 1


def test_an_image_in_memory_that_is_unreadable_is_named_by_its_index() -> None:
    images = LabelledImages(np.zeros((3, 4, 4), np.float32), [0, 0, 0], ["a"], origin="somewhere")
    with pytest.raises(UnreadableImageError, match=r"somewhere\[2\].*float32"):
        images.image(2)


def test_labelled_images_can_be_pickled() -> None:
    images = LabelledImages(np.zeros((3, 4, 4), np.uint8), [0, 1, 0], ["a", "b"]).subset(np.array([1]))
    assert pickle.loads(pickle.dumps(images)).targets.tolist() == [1]
