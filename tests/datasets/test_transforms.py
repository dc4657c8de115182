import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regard.datasets.loader import seeded_random
from regard.datasets.transforms import eval_transform, mean_and_std, train_transform


def photo(width: int = 40, height: int = 30, channels: int = 3) -> Image.Image:
    shape = (height, width, 3) if channels == 3 else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


RECIPES: list[dict[str, Any]] = [
    {},
    {"auto_augment": "rand-m9-mstd0.5-inc1", "erase": 1.0},
    {"auto_augment": "original"},
    {"auto_augment": "augmix-m3-w3"},
    {"auto_augment": "3a"},
    {"color_jitter": [0.1, 0.2, 0.3], "vflip": 0.5, "hflip": 1.0},
    {"color_jitter": 0.0, "interpolation": "bicubic", "scale": [0.5, 1.0], "ratio": [1.0, 1.0]},
    {"no_aug": True},
    {"albumentations": [{"ElasticTransform": {"alpha": 1.0, "p": 1.0}}, "GaussNoise"]},
    {"crop": "pad", "pad_px": 0},
    {"crop": "zoom"},
    {"erase": 1.0, "erase_mode": "const", "erase_count": 2},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, (28, 20), (70, 96)])
def test_every_recipe_makes_a_tensor_of_the_size(recipe: dict[str, Any], channels: int, size: Any) -> None:
    transform = pickle.loads(pickle.dumps(train_transform(size, channels=channels, **recipe)))
    height, width = (size, size) if isinstance(size, int) else size
    for seed in range(5):
        with seeded_random(seed):
            tensor = transform(photo(channels=channels))
        assert (tensor.shape, tensor.dtype) == ((channels, height, width), torch.float32)
        assert tensor.isfinite().all()


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("size", [28, 70])
def test_a_seed_decides_the_augmentation(recipe: dict[str, Any], size: int) -> None:
    tensors = []
    for _ in range(2):
        transform = train_transform(size, **recipe)
        with seeded_random(5):
            tensors.append(transform(photo()))
    torch.testing.assert_close(*tensors, rtol=0, atol=0)


def test_small_images_are_neither_flipped_nor_zoomed() -> None:
    transform = train_transform(8, channels=1, mean=[0.0], std=[1.0], color_jitter=0.0)
    image = photo(8, 8, channels=1)
    padded = np.pad(np.asarray(image), 1)
    crops = [padded[top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    for _ in range(20):
        pixels = transform(image)[0].mul(255).round().numpy().astype(np.uint8)
        assert any(np.array_equal(pixels, crop) for crop in crops)


def test_large_images_are_flipped() -> None:
    transform = train_transform(72, color_jitter=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    image = photo(72, 72)
    kinds = {transform(image).numpy().tobytes() for _ in range(20)}
    assert len(kinds) == 2


@pytest.mark.parametrize("size", [8, 96])
def test_no_aug_has_no_randomness(size: int) -> None:
    transform = train_transform(size, no_aug=True)
    torch.testing.assert_close(transform(photo()), transform(photo()), rtol=0, atol=0)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_makes_a_tensor_of_the_size(crop_mode: str, channels: int) -> None:
    transform = pickle.loads(pickle.dumps(eval_transform((48, 80), channels=channels, crop_mode=crop_mode)))
    assert transform(photo(channels=channels)).shape == (channels, 48, 80)


def test_evaluation_of_a_digit_keeps_every_pixel() -> None:
    image = photo(8, 8, channels=1)
    pixels = eval_transform(8, channels=1, mean=[0.0], std=[1.0])(image)[0].mul(255).round()
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(image))


def test_normalisation_uses_mean_and_std() -> None:
    grey = Image.new("L", (8, 8), 255)
    assert eval_transform(8, channels=1, mean=[0.5], std=[0.25])(grey).unique().tolist() == [2.0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mean": [0.5]}, "mean has 1 values for 3 channels"),
        ({"std": [1.0, 1.0, 0.0]}, "expected positive values"),
        ({"size": 0}, "the image size is 0 x 0"),
        ({"interpolation": "bicubc"}, "did you mean 'bicubic'"),
        ({"scale": (0.5, 0.1)}, "scale is"),
        ({"scale": (0.5, 1.5)}, "at most 1"),
        ({"ratio": (0.0, 1.0)}, "ratio is"),
        ({"hflip": 1.5}, "hflip is 1.5"),
        ({"erase": -0.1}, "erase is -0.1"),
        ({"erase_mode": "blue"}, "erase_mode is 'blue'"),
        ({"crop": "big"}, "crop is 'big'"),
        ({"pad_px": -1, "crop": "pad"}, "pad_px is -1"),
        ({"auto_augment": "rnd-m9"}, "auto_augment='rnd-m9'"),
        ({"color_jitter": [0.1, 0.1]}, "a jitter is one number or three"),
        ({"no_aug": True, "albumentations": ["Blur"]}, "exclude each other"),
    ],
)
def test_a_bad_training_option_is_explained(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        train_transform(**{"size": 32, **options})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"crop_pct": 0.0}, "crop_pct is 0.0"),
        ({"crop_pct": 1.1}, "crop_pct is 1.1"),
        ({"crop_mode": "corner"}, "crop_mode is 'corner'"),
        ({"interpolation": "random"}, "no interpolation is called 'random'"),
    ],
)
def test_a_bad_evaluation_option_is_explained(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        eval_transform(32, **options)


def test_grey_is_normalised_by_the_mean_of_the_colours() -> None:
    assert mean_and_std(1) == (pytest.approx((0.449,)), pytest.approx((0.226,)))
