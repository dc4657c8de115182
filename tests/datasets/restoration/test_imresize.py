"""MATLAB's bicubic: numbers from the definition, and what must hold for any image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regard.datasets.restoration.imresize import contributions, cubic, resize, resized_length


def naive(line: np.ndarray, new_length: int, scale: float) -> np.ndarray:
    """One axis, pixel by pixel, as the documentation words it."""
    stretch, length = min(scale, 1.0), len(line)
    result = []
    for pixel in range(1, new_length + 1):  # MATLAB counts from 1
        centre = pixel / scale + 0.5 * (1 - 1 / scale)
        total = weight_sum = 0.0
        for index in range(int(centre - 3 / stretch) - 2, int(centre + 3 / stretch) + 3):
            weight = stretch * cubic(np.array(stretch * (centre - index)))
            mirrored = [*range(1, length + 1), *range(length, 0, -1)][(index - 1) % (2 * length)]
            total, weight_sum = total + weight * line[mirrored - 1], weight_sum + weight
        result.append(total / weight_sum)
    return np.array(result)


@pytest.mark.parametrize(
    ("length", "scale"), [(16, 0.5), (17, 0.5), (9, 1 / 3), (12, 0.25), (7, 2.0), (5, 3.0), (2, 0.5)]
)
def test_it_is_the_definition(length: int, scale: float) -> None:
    line = np.random.default_rng(length).random(length)
    found = resize(np.tile(line[:, None, None], (1, 4, 1)), size=(resized_length(length, scale), 4))
    assert found[:, 1, 0] == pytest.approx(naive(line, len(found), len(found) / length), abs=1e-12)


def test_the_weights_for_halving_are_those_of_the_kernel_at_quarter_steps() -> None:
    weights, indices = contributions(64, 32, 0.5)
    # cubic(d / 2) / 2 at d = 3.5, 2.5, 1.5, 0.5, by hand
    half = np.array([-3, -9, 29, 111]) / 256
    assert weights[10] == pytest.approx(np.concatenate([half, half[::-1]]), abs=1e-15)
    assert indices[10].tolist() == list(range(17, 25))


def test_inside_it_agrees_with_torch_antialiased() -> None:
    image = np.random.default_rng(0).random((40, 32, 3))
    # PyTorch's kernel has a = -1/2 with antialiasing, but another border
    other = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None], size=(20, 16), mode="bicubic", antialias=True
    )
    found = resize(image, 0.5)
    np.testing.assert_allclose(found[4:-4, 4:-4], other[0].permute(1, 2, 0).numpy()[4:-4, 4:-4], atol=1e-12)


def test_a_flat_image_stays_flat_and_a_ramp_a_ramp() -> None:
    assert resize(np.full((9, 7, 1), 0.3), 0.5) == pytest.approx(0.3)
    ramp = np.tile(np.arange(40.0)[:, None], (1, 8))
    assert np.diff(resize(ramp, 0.5)[4:-4, 2]) == pytest.approx(2.0)


def test_single_and_double_precision_agree() -> None:
    image = np.random.default_rng(0).random((21, 34, 3))
    single = resize(image.astype(np.float32), 1 / 3)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, resize(image, 1 / 3), atol=1e-6)


def test_wrong_values_are_named() -> None:
    image = np.zeros((4, 4, 3))
    with pytest.raises(ValueError, match="either scale or size"):
        resize(image)
    with pytest.raises(ValueError, match="scale -1"):
        resize(image, -1)
    with pytest.raises(ValueError, match="empty"):
        resize(np.zeros((0, 4, 3)), 0.5)
