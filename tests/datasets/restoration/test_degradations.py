"""Kernels, noise, JPEG, and what they make together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regard.datasets.restoration.degradations import DEGRADATIONS, build_degradation
from regard.datasets.restoration.jpeg import compress
from regard.datasets.restoration.kernels import SHAPES, Blur, gaussian_kernel, sinc_kernel
from regard.datasets.restoration.noise import gaussian_noise, poisson_noise
from regard.datasets.restoration.photographs import photograph

OPTIONS: dict[str, dict[str, Any]] = {"albumentations": {"transforms": [{"ImageCompression": {"p": 1.0}}]}}
SCALES = {"bicubic": 2, "noise": 1, "jpeg": 1, "real_world": 4, "albumentations": 2}


@pytest.mark.parametrize("plateau", [False, True])
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_kernels_add_up_to_one_and_are_symmetric(beta: float, plateau: bool) -> None:
    kernel = gaussian_kernel(9, (2.0, 0.8), 0.7, beta=beta, plateau=plateau)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1])


def test_a_gaussian_kernel_has_the_deviations_and_the_direction_asked_for() -> None:
    kernel = gaussian_kernel(41, (4.0, 2.0), np.pi / 2)  # the long axis stands upright
    steps = np.arange(41) - 20
    down, across = kernel.sum(axis=1) @ steps**2, kernel.sum(axis=0) @ steps**2
    assert (down**0.5, across**0.5) == pytest.approx((4.0, 2.0), rel=1e-3)


def test_the_low_pass_passes_low_and_stops_high_frequencies() -> None:
    spectrum = np.abs(np.fft.fft2(sinc_kernel(41, np.pi / 2), (64, 64)))
    assert spectrum[0, 4] == pytest.approx(1, abs=0.1)
    assert spectrum[0, 28] < 0.1


def test_random_kernels_are_of_every_shape_and_within_their_ranges() -> None:
    rng, drawn = np.random.default_rng(0), Blur(sinc=0.0)
    kernels = [drawn.draw(rng) for _ in range(40)]
    assert {len(kernel) for kernel in kernels} == set(drawn.sides)
    assert all(kernel.sum() == pytest.approx(1) and kernel.min() >= 0 for kernel in kernels)
    with pytest.raises(ValueError, match="add up to 1"):
        Blur(shares=(1.0,) * len(SHAPES))


def test_noise_has_the_strength_asked_for_and_grey_noise_is_grey() -> None:
    rng, flat = np.random.default_rng(0), np.full((64, 64, 3), 0.25, np.float32)
    found = gaussian_noise(flat, 25, rng) - flat
    assert found.std() * 255 == pytest.approx(25, rel=0.03)
    grey = gaussian_noise(flat, 25, rng, grey=True) - flat
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-6)
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32)[:, None, None], (1, 64, 3))
    light = (poisson_noise(ramp, 1.0, rng) - ramp).std(axis=(1, 2))
    # the variance of a count is its mean: 256 levels are counts of up to 256
    assert light[200:].mean() == pytest.approx((0.9 / 256) ** 0.5, rel=0.1)
    assert light[:40].mean() < light[200:].mean() / 2


def test_jpeg_of_lower_quality_is_farther_from_the_image() -> None:
    image = photograph("cat")[:96, :96].astype(np.float32) / 255
    errors = [np.abs(compress(image, quality) - image).mean() for quality in (90, 50, 10)]
    assert errors == sorted(errors)
    assert errors[0] < 0.02


@pytest.mark.parametrize("name", list(DEGRADATIONS))
def test_every_degradation_gives_the_promised_size_and_type(name: str) -> None:
    degrade = build_degradation(name, SCALES[name], OPTIONS.get(name))
    image = photograph("coffee")[:48, :64].astype(np.float32) / 255
    for channels in (3, 1):
        degraded = degrade(image[..., :channels], np.random.default_rng(0))
        assert degraded.shape == (48 // degrade.scale, 64 // degrade.scale, channels)
        assert degraded.dtype == np.float32
        again = degrade(image[..., :channels], np.random.default_rng(0))
        np.testing.assert_array_equal(degraded, again)


@pytest.mark.parametrize(
    ("name", "scale", "options", "message"),
    [
        ("bicubc", 2, {}, "did you mean 'bicubic'"),
        ("bicubic", 1, {}, "at least 2"),
        ("noise", 2, {}, "noise does not shrink images"),
        ("noise", 1, {"sigma": [50, 5]}, "sigma is"),
        ("noise", 1, {"quality": 3}, "no option 'quality'; Known: sigma, grey"),
        ("jpeg", 1, {"quality": 300}, "from 1 to 100"),
        ("real_world", 4, {"first": {"sigmas": 3}}, "options of a round"),
        ("albumentations", 1, {}, "transforms"),
        ("albumentations", 1, {"transforms": ["Blurr"]}, "Blur"),
    ],
)
def test_wrong_options_are_named(name: str, scale: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_degradation(name, scale, options)
