"""Crops are aligned, and a degraded crop equals the same crop of the degraded whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from regard.datasets import UnreadableImageError
from regard.datasets.loader import Draw
from regard.datasets.restoration.crops import TrainingCrops, WholeImages, flip
from regard.datasets.restoration.decoded_cache import cached
from regard.datasets.restoration.degradations import build_degradation
from regard.datasets.restoration.image_pairs import SourceImage, check_sides, open_hq_images, pair_up, read_pixels


def noisy(height: int = 61, width: int = 83, seed: int = 0) -> SourceImage:
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.0)
    return SourceImage("noisy", lambda: smooth)


def unflip(image: np.ndarray, horizontal: int, vertical: int, transpose: int) -> np.ndarray:
    image = image.swapaxes(0, 1) if transpose else image
    return flip(image, horizontal, vertical, 0)


@pytest.mark.parametrize(("name", "scale"), [("bicubic", 2), ("bicubic", 3), ("jpeg", 1)])
def test_a_degraded_crop_is_cut_from_the_degraded_whole(name: str, scale: int) -> None:
    degrade = build_degradation(name, scale, {"quality": 30} if name == "jpeg" else None)
    crops = TrainingCrops([noisy()], count=1, patch_px=9, scale=scale, degradation=degrade)
    lq, hq = (part.permute(1, 2, 0).numpy() for part in WholeImages([noisy()], scale=scale, degradation=degrade)[0])
    windows = np.lib.stride_tricks.sliding_window_view(lq, (9, 9), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    for seed in range(4):
        small, large = (part.permute(1, 2, 0).numpy() for part in crops[Draw(0, seed)])
        assert large.shape == (9 * scale, 9 * scale, 3)
        distances = {
            flips: np.abs(windows - unflip(small, *flips)).max(axis=(2, 3, 4)) for flips in np.ndindex(2, 2, 2)
        }
        flips = min(distances, key=lambda flips: distances[flips].min())
        assert distances[flips].min() < 0.005
        top, left = np.unravel_index(distances[flips].argmin(), distances[flips].shape)
        crop = hq[top * scale : (top + 9) * scale, left * scale : (left + 9) * scale]
        np.testing.assert_allclose(flip(crop, *flips), large, atol=1e-6)


def test_a_crop_depends_on_its_seed_alone() -> None:
    crops = TrainingCrops(
        [noisy(), noisy(seed=1)], count=1, patch_px=8, scale=4, degradation=build_degradation("real_world", 4)
    )
    first, other = crops[Draw(0, 3)], crops[Draw(0, 4)]
    again = crops[Draw(7, 3)]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_the_eight_symmetries_are_all_different() -> None:
    image = np.arange(12).reshape(3, 4, 1)
    seen = {flip(image, *flips).tobytes() + str(flip(image, *flips).shape).encode() for flips in np.ndindex(2, 2, 2)}
    assert len(seen) == 8


def test_grey_networks_get_grey_pairs() -> None:
    crops = TrainingCrops(
        [noisy()], count=1, patch_px=8, scale=1, degradation=build_degradation("noise", 1), channels=1
    )
    lq, hq = crops[0]
    assert lq.shape == hq.shape == (1, 8, 8)


def test_shrinking_and_enlarging_change_what_crops_are_cut_from() -> None:
    degrade = build_degradation("bicubic", 2)
    with pytest.raises(ValueError, match="above 0"):
        TrainingCrops([noisy()], count=1, patch_px=8, scale=2, degradation=degrade, shrink_factors=[0.0])
    small = TrainingCrops([noisy(20, 20)], count=1, patch_px=16, scale=2, degradation=degrade)
    error = small[0]
    assert isinstance(error, UnreadableImageError)
    assert "20 x 20 pixels are less than a crop of 32" in str(error)
    lq, _ = TrainingCrops([noisy(20, 20)], count=1, patch_px=16, scale=2, degradation=degrade, enlarge_small=True)[0]
    assert lq.shape == (3, 16, 16)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    hq, lq = tmp_path / "hq", tmp_path / "lq"
    for folder, scale in ((hq, 1), (lq, 2)):
        folder.mkdir()
        for name in ("a", "b"):
            pixels = np.full((24 // scale, 32 // scale, 3), 30_000, np.uint16)
            assert cv2.imwrite(str(folder / f"{name}{'x2' if scale == 2 else ''}.png"), pixels)
    return hq, lq


def test_pairs_of_16_bits_keep_their_bits(folders: tuple[Path, Path]) -> None:
    hq, lq = (open_hq_images(str(folder)) for folder in folders)
    small, large = WholeImages(pair_up(hq, lq, 2), scale=2)[1]
    assert small.shape == (3, 12, 16)
    assert large.mul(65535).round().unique().tolist() == [30_000]


def test_an_image_without_a_partner_or_of_another_size_is_named(folders: tuple[Path, Path]) -> None:
    hq, lq = folders
    with pytest.raises(ValueError, match=r"1 of 2 images have no partner among the 1 others: b\.png"):
        pair_up(open_hq_images(str(hq)), open_hq_images(str(lq))[:1], 2)
    assert cv2.imwrite(str(lq / "bx2.png"), np.zeros((5, 5, 3), np.uint8))
    error = WholeImages(pair_up(open_hq_images(str(hq)), open_hq_images(str(lq)), 2), scale=2)[1]
    assert isinstance(error, UnreadableImageError)
    assert "bx2.png has 5 x 5, not 2 times the size" in str(error)


def test_files_that_are_not_images_are_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert cv2.imwrite(str(tmp_path / "small.png"), np.zeros((8, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"2 of 2 images .* 16 pixels: broken\.png .*, small\.png \(40 x 8\)"):
        check_sides(open_hq_images(str(tmp_path)), 16)
    with pytest.raises(ValueError, match="neither a folder"):
        open_hq_images(str(tmp_path / "nowhere"))


def test_colours_of_16_bits_are_not_swapped_and_grey_becomes_three(tmp_path: Path) -> None:
    red = np.zeros((2, 2, 3), np.uint16)
    red[..., 2] = 65535  # OpenCV has red last
    assert cv2.imwrite(str(tmp_path / "red.png"), red)
    assert read_pixels(tmp_path / "red.png")[0, 0].tolist() == [65535, 0, 0]
    assert cv2.imwrite(str(tmp_path / "grey.tif"), red[..., 2])
    assert read_pixels(tmp_path / "grey.tif").shape == (2, 2, 3)


def test_the_cache_decodes_once_and_sees_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    assert cv2.imwrite(str(file), np.full((4, 4, 3), 7, np.uint8))
    for expected in (7, 9):
        kept = cached(open_hq_images(str(file))[0], tmp_path / "cache")
        assert kept.read()[0, 0, 0] == kept.read()[0, 0, 0] == expected
        assert cv2.imwrite(str(file), np.full((4, 5, 3), 9, np.uint8))
    assert len(list((tmp_path / "cache").iterdir())) == 2
