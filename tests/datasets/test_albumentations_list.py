import os
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.datasets.albumentations_list import AlbumentationsList
from regard.datasets.loader import seeded_random

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 20, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "entry",
    [
        "HorizontalFlip",
        {"ElasticTransform": {"alpha": 1.0, "p": 1.0}},
        {"Affine": {"rotate": (-10, 10), "p": 1.0}},
        {"GridDistortion": {"p": 1.0}},
        {"CoarseDropout": {"p": 1.0}},
        {"OneOf": {"transforms": ["Blur", {"RandomBrightnessContrast": {"p": 1.0}}], "p": 1.0}},
    ],
    ids=str,
)
def test_transforms_keep_size_and_mode(entry: Any, mode: str) -> None:
    image = AlbumentationsList([entry])(NOISE.convert(mode))
    assert (image.mode, image.size) == (mode, (20, 28))


def test_pythons_generator_decides_the_image() -> None:
    pipeline = AlbumentationsList([{"ElasticTransform": {"alpha": 50.0, "p": 1.0}}])
    images = []
    for seed in (1, 1, 2):
        with seeded_random(seed):
            images.append(np.asarray(pipeline(NOISE)).tolist())
    assert images[0] == images[1] != images[2]


def test_a_list_can_be_pickled() -> None:
    pipeline = pickle.loads(pickle.dumps(AlbumentationsList([{"OneOf": {"transforms": ["Blur"]}}])))
    assert pipeline(NOISE).size == NOISE.size


def test_the_input_is_not_changed() -> None:
    before = NOISE.tobytes()
    AlbumentationsList([{"CoarseDropout": {"p": 1.0}}])(NOISE)
    assert NOISE.tobytes() == before


def test_the_library_is_kept_from_asking_the_network() -> None:
    AlbumentationsList(["Blur"])
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"]


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([{"ElasticTransfrm": {}}], "no transform 'ElasticTransfrm'; did you mean 'ElasticTransform'"),
        (["os.system"], "no transform 'os.system'"),
        (["BasicTransform"], "no transform 'BasicTransform'"),
        (["random_utils"], "no transform 'random_utils'"),
        ([{"Blur": {"blur_limt": 3}}], "Blur has no argument 'blur_limt'; did you mean 'blur_limit'"),
        ([{"Blur": {"p": "often"}}], "Blur does not accept .*; p; Input should be a valid number"),
        ([{"OneOf": {"transforms": ["Bluur"]}}], "did you mean 'Blur'"),
        ([{"OneOf": {"transforms": "Blur"}}], "expected a list"),
        ([{"Blur": {}, "GaussNoise": {}}], "one name with its arguments"),
        ([3], "expected the name of a transform"),
        ({"Blur": {}}, "expected a list"),
    ],
)
def test_a_bad_entry_is_explained(entries: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AlbumentationsList(entries)


@pytest.mark.parametrize(
    "entry",
    [{"Normalize": {}}, {"CenterCrop": {"height": 4, "width": 4}}, {"Transpose": {"p": 1.0}}],
    ids=str,
)
def test_a_transform_that_changes_the_form_is_explained(entry: Any) -> None:
    with pytest.raises(ValueError, match="the albumentations list turns"):
        AlbumentationsList([entry])(NOISE)
