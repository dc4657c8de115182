import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from regard.datasets.slides.grid import Grid
from regard.datasets.slides.opening import open_slide
from regard.datasets.slides.patches import PatchReader
from regard.datasets.slides.slide import Slide
from regard.datasets.slides.thumbnail import read_thumbnail
from regard.datasets.slides.tiff_slide import TiffSlide
from regard.datasets.slides.writing import write_slide

WIDTH, HEIGHT = 700, 560


def regular_grid(patch: int, side: int, *, first: int = 0, step: int | None = None, mpp: float = 0.5) -> Grid:
    step = step or side
    across, down = np.arange(first, WIDTH, step), np.arange(first, HEIGHT, step)
    corners = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    size = {"slide_mpp": mpp, "width": WIDTH, "height": HEIGHT}
    return Grid(corners, np.ones(len(corners)), patch=patch, side=side, step=step, mpp=mpp * side / patch, **size)


def read_all(reader: PatchReader) -> dict[int, np.ndarray]:
    return {int(index): pixels for indices, batch in reader for index, pixels in zip(indices, batch, strict=True)}


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (70, 60, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def path(texture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    write_slide(path, texture, mpp=0.5, levels=(1, 4), tile=128, quality=None)
    return path


@pytest.mark.parametrize("reader", ["tiff", "openslide", "image"])
@pytest.mark.parametrize("first", [0, 50, -37])
@pytest.mark.parametrize("threads", [1, 3])
def test_patches_of_the_slides_own_size_are_its_very_pixels(
    path: Path, texture: np.ndarray, reader: str, first: int, threads: int
) -> None:
    grid = regular_grid(128, 128, first=first)
    slide = open_slide(path, reader=reader)
    found = read_all(PatchReader(slide, grid, batch=5, threads=threads, cache_bytes=1 << 19))
    assert sorted(found) == list(range(len(grid)))
    padded = np.pad(texture, ((200, 200), (200, 200), (0, 0)), constant_values=255)
    for index, (x, y) in enumerate(grid.coordinates):
        np.testing.assert_array_equal(found[index], padded[y + 200 : y + 328, x + 200 : x + 328])


def test_threads_that_read_at_once_open_the_file_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide, opened, together = TiffSlide(path), [], Barrier(3)

    def slowly(self: Path, mode: str) -> Any:
        opened.append(open(self, mode))  # noqa: PTH123, SIM115
        time.sleep(0.05)
        return opened[-1]

    def read(offset: int) -> bytes:
        together.wait()
        return slide._bytes(offset, 2)

    slide.close()
    monkeypatch.setattr(Path, "open", slowly)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(read, [0, 0, 0])) == [b"II"] * 3
    slide.close()
    assert len(opened) == 1
    assert opened[0].closed


def test_each_tile_of_the_file_is_decoded_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    decode = TiffSlide.decode

    def counted(self: TiffSlide, column: int, row: int, *rest: object) -> object:
        asked.append((column, row))
        return decode(self, column, row, *rest)

    monkeypatch.setattr(TiffSlide, "decode", counted)
    for grid in (regular_grid(128, 128), regular_grid(128, 128, first=30, step=64), regular_grid(64, 100)):
        asked.clear()
        read_all(PatchReader(open_slide(path, reader="tiff"), grid, batch=4))
        assert sorted(asked) == sorted((column, row) for column in range(6) for row in range(5))


@pytest.mark.parametrize(("side", "level"), [(128, 0), (256, 0), (508, 1), (512, 1), (500, 0), (2048, 1)])
def test_the_coarsest_level_that_is_fine_enough_is_read(path: Path, side: int, level: int) -> None:
    assert PatchReader(open_slide(path), regular_grid(128, side)).level == level


@pytest.mark.parametrize("side", [200, 256, 300, 100])
def test_resampled_patches_are_those_of_pillow(path: Path, texture: np.ndarray, side: int) -> None:
    grid = regular_grid(128, side)
    found = read_all(PatchReader(open_slide(path), grid, [1, 0]))
    for index in (0, 1):
        x, y = grid.coordinates[index]
        region = Image.fromarray(texture[y : y + side, x : x + side])
        expected = np.asarray(region.resize((128, 128), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(found[index] - expected).max() <= (1 if side > 128 else 2)


@pytest.mark.parametrize("slide_mpp", [0.227, 0.25, 0.29, 0.46, 0.5])
@pytest.mark.parametrize(("levels", "mpp"), [((1,), 0.5), ((1, 2), 0.5), ((1, 4), 1.0)])
def test_a_patch_spans_its_microns_to_one_percent(
    tmp_path: Path, slide_mpp: float, levels: tuple[int, ...], mpp: float
) -> None:
    um_across = np.arange(WIDTH) * slide_mpp
    ruler = np.where(um_across // 10 % 2 == 0, 255, 0).astype(np.uint8)  # edges 10 um apart
    ruler = np.broadcast_to(ruler[None, :, None], (HEIGHT, WIDTH, 3)).copy()
    write_slide(tmp_path / "a.tif", ruler, mpp=slide_mpp, levels=levels, quality=None, kind="generic", tile=128)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.mpp == pytest.approx(slide_mpp, rel=1e-5)
    side = round(128 / slide_mpp)
    grid = regular_grid(round(128 / mpp), side, mpp=slide_mpp)
    row = read_all(PatchReader(slide, grid, [0]))[0][5, :, 0].astype(float)
    before, after = row[:-1] - 127.5, row[1:] - 127.5
    crossing = np.flatnonzero(before * after < 0)
    edges_um = (crossing + 0.5 + before[crossing] / (before[crossing] - after[crossing])) * grid.mpp
    slope, start = np.polyfit(np.arange(1, len(edges_um) + 1) * 10, edges_um, 1)
    assert len(edges_um) == 12
    assert slope == pytest.approx(1, abs=0.01)
    assert abs(start) < slide_mpp * levels[-1]
    assert grid.patch * grid.mpp == pytest.approx(128, rel=0.01)


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
@pytest.mark.parametrize("first", [0, 20])
def test_patches_with_damage_are_left_out_and_named(
    path: Path, tmp_path: Path, texture: np.ndarray, reader: str, first: int
) -> None:
    damaged = tmp_path / "a.svs"
    damaged.write_bytes(path.read_bytes())
    with tifffile.TiffFile(path) as tiff, damaged.open("r+b") as file:
        file.seek(tiff.pages[0].dataoffsets[7])  # column 1, row 1 of 6 columns
        file.write(b"\xff" * 50)
    grid = regular_grid(128, 128, first=first)
    patches = PatchReader(open_slide(damaged, reader=reader), grid, batch=4)
    found = read_all(patches)
    bad = [
        index
        for index, (x, y) in enumerate(grid.coordinates)
        if x < 256 and x + 128 > 128 and y < 256 and y + 128 > 128
    ]
    assert sorted(patches.damaged) == bad
    assert sorted([*found, *bad]) == list(range(len(grid)))
    x, y = grid.coordinates[2]
    np.testing.assert_array_equal(found[2], texture[y : y + 128, x : x + 128])


def test_no_indices_give_no_batches_and_wrong_ones_are_named(path: Path) -> None:
    slide, grid = open_slide(path), regular_grid(128, 128)
    assert list(PatchReader(slide, grid, [])) == []
    assert len(PatchReader(slide, grid, np.array([3, 1]))) == 2
    with pytest.raises(ValueError, match="the grid has 30 patches; indices are from 0, not 2 to 30"):
        PatchReader(slide, grid, [2, 30])
    with pytest.raises(ValueError, match="must be at least 1, not 0, 1"):
        PatchReader(slide, grid, batch=0)


@pytest.mark.parametrize("longest", [700, 350, 100, 3, 5000])
def test_a_thumbnail_averages_and_lies_over_the_slide(path: Path, texture: np.ndarray, longest: int) -> None:
    image, downsample = read_thumbnail(open_slide(path), longest)
    assert downsample == max(1, 700 / longest)
    assert image.shape[1] == min(longest, 700)
    assert abs(image.shape[0] * downsample - HEIGHT) <= downsample
    area = cv2.resize(texture, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(float).mean((0, 1)) - area.mean((0, 1))).max() < 4
    if longest == 350:
        assert np.abs(image.astype(float) - area).max() <= 1


def test_a_thumbnail_reads_little_of_full_resolution(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    read: Callable[..., np.ndarray] = TiffSlide.read

    def watched(self: Slide, x: int, y: int, width: int, height: int, level: int = 0) -> np.ndarray:
        levels.append(level)
        return read(self, x, y, width, height, level)

    monkeypatch.setattr(TiffSlide, "read", watched)
    read_thumbnail(open_slide(path, reader="tiff"), 100)
    assert set(levels) == {1}


def test_a_thumbnail_is_white_where_the_slide_is_damaged(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "a.svs"
    damaged.write_bytes(path.read_bytes())
    with tifffile.TiffFile(path) as tiff, damaged.open("r+b") as file:
        file.seek(tiff.pages[0].dataoffsets[0])
        file.write(b"\xff" * 50)
    image, _ = read_thumbnail(open_slide(damaged, reader="tiff"), 700)
    assert (image[:128, :128] == 255).all()
    assert (image[200:, 200:].mean((0, 1)) < 200).all()
