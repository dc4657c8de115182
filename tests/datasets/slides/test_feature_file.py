from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from slide_stand_in import ArraySlide

from regard.datasets.bags.h5_features import H5Features
from regard.datasets.slides import feature_file
from regard.datasets.slides.feature_file import check_features, export_pt, read_features, write_features
from regard.datasets.slides.grid import Grid, build_grid
from regard.datasets.slides.patch_file import grid_fingerprint, read_grid, write_grid
from regard.datasets.slides.shapes import shapely

SLIDE = ArraySlide(np.empty((600, 800, 3), np.uint8), mpp=0.25, objective=40, downsamples=(1, 2), path="x/slide 1.svs")
GRID = build_grid(SLIDE, shapely.box(30, 30, 700, 500), patch=32, overlap=0.25)
VALUES = np.random.default_rng(0).standard_normal((len(GRID), 6)).astype(np.float32)
EMPTY = build_grid(SLIDE, shapely.MultiPolygon(), patch=32)


def chunks(skipped: tuple[int, ...] = (), seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    indices = np.setdiff1d(np.random.default_rng(seed).permutation(len(GRID)), skipped)
    indices = np.random.default_rng(seed).permutation(indices)
    for start in range(0, len(indices), 7):
        yield indices[start : start + 7], VALUES[indices[start : start + 7]]


def write(path: Path, **own: Any) -> int:
    own = {"chunks": chunks(), "grid": GRID, "slide": SLIDE, "encoder": "small", "width": 6} | own
    return write_features(path, **own)


def check(path: Path, **own: Any) -> str | None:
    return check_features(path, **({"grid": GRID, "encoder": "small", "width": 6} | own))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("chunk_rows", [16, 1024])
@pytest.mark.parametrize("skipped", [(), (0, 5, 6, 90, len(GRID) - 1)])
def test_features_come_back_in_the_grids_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, chunk_rows: int, skipped: tuple[int, ...]
) -> None:
    monkeypatch.setattr(feature_file, "_CHUNK_ROWS", chunk_rows)
    path = tmp_path / "deep" / "slide 1.h5"
    kept = np.setdiff1d(np.arange(len(GRID)), skipped)
    assert write(path, chunks=chunks(skipped), dtype=dtype) == len(kept)
    features, grid, attributes = read_features(path)
    np.testing.assert_array_equal(features, VALUES[kept].astype(dtype))
    np.testing.assert_array_equal(grid.coordinates, GRID.coordinates[kept])
    np.testing.assert_allclose(grid.tissue, GRID.tissue[kept], atol=1e-6)
    kept = ("patch", "side", "step", "mpp", "slide_mpp", "width", "height")
    assert [getattr(grid, name) for name in kept] == [getattr(GRID, name) for name in kept]
    assert (attributes["encoder"], attributes["name"]) == ("small", "slide 1")
    assert check(path, dtype=dtype) is None
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["skipped"][:], GRID.coordinates[list(skipped)])
    assert [one.name for one in path.parent.iterdir()] == ["slide 1.h5"]


def test_a_slide_without_tissue_has_an_empty_file(tmp_path: Path) -> None:
    assert write(tmp_path / "a.h5", chunks=[], grid=EMPTY) == 0
    features, grid, _ = read_features(tmp_path / "a.h5")
    assert (features.shape, len(grid), check(tmp_path / "a.h5", grid=EMPTY)) == ((0, 6), 0, None)
    assert H5Features(str(tmp_path / "a.h5")).shape() == (0, 6)
    export_pt(tmp_path / "a.h5", tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True).shape == (0, 6)


def test_clam_reads_features(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r") as file:  # as its dataset and its heatmaps do
        features, coords = torch.from_numpy(file["features"][:]), file["coords"][:]
    assert features.dtype == torch.float32
    assert features.shape == (len(GRID), 6)
    assert coords.shape == (len(GRID), 2)
    export_pt(tmp_path / "a.h5", tmp_path / "a.pt")
    torch.testing.assert_close(torch.load(tmp_path / "a.pt", weights_only=True), features)


def test_clam_reads_patches_of_the_right_field(tmp_path: Path) -> None:
    write_grid(tmp_path / "level.h5", GRID, slide=SLIDE)
    odd = build_grid(SLIDE, shapely.box(0, 0, 800, 600), patch=32, mpp=0.4)
    write_grid(tmp_path / "clam.h5", odd, slide=SLIDE, layout="clam")
    for name, grid in (("level", GRID), ("clam", odd)):
        with h5py.File(tmp_path / f"{name}.h5", "r") as file:
            attributes = file["coords"].attrs
            downsample = SLIDE.levels[attributes["patch_level"]].downsample
            assert attributes["patch_size"] * downsample == grid.side
            assert tuple(attributes["downsample"]) == (downsample, downsample)
            assert len(attributes["level_dim"]) == 2
            assert attributes["name"] == "slide 1"
    write_grid(tmp_path / "odd.h5", odd, slide=SLIDE)
    with h5py.File(tmp_path / "odd.h5", "r") as file:
        assert "patch_level" not in file["coords"].attrs  # CLAM would read another field


def test_trident_reads_features_and_patches(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    write_grid(tmp_path / "b.h5", GRID, slide=SLIDE)
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}.h5", "r") as file:
            assets = {key: file[key][:] for key in file}
            attributes = {
                key: json.loads(value) if isinstance(value, str) and value.startswith("{") else value
                for key, value in file["coords"].attrs.items()
            }
        assert assets["coords"].dtype == np.int64
        assert (attributes["patch_size"], attributes["patch_size_level0"], attributes["overlap"]) == (32, 64, 8)
        level0, target = attributes["level0_magnification"], attributes["target_magnification"]
        assert attributes["patch_size"] * level0 // target == attributes["patch_size_level0"]
        assert (attributes["level0_width"], attributes["level0_height"]) == (800, 600)
        assert {"name", "savetodir"} <= set(attributes)


def test_bags_read_them_without_a_copy(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    bag = H5Features(str(tmp_path / "a.h5"))
    assert torch.equal(bag.read(), torch.from_numpy(VALUES))
    coordinates = bag.coordinates()
    assert coordinates is not None
    assert np.array_equal(coordinates.numpy(), GRID.coordinates)


@pytest.mark.parametrize("layout", ["trident", "clam"])
def test_grids_come_back(tmp_path: Path, layout: Any) -> None:
    for grid in (GRID, EMPTY):
        write_grid(tmp_path / "a.h5", grid, slide=SLIDE, layout=layout)
        back = read_grid(tmp_path / "a.h5")
        np.testing.assert_array_equal(back.coordinates, grid.coordinates)
        assert (back.side, back.slide_mpp, back.width, back.height) == (64, 0.25, 800, 600)
        if layout == "trident":
            assert grid_fingerprint(back) == grid_fingerprint(grid)


def test_grids_of_others_are_read(tmp_path: Path) -> None:
    trident = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}
    trident |= {"overlap": 128, "name": "a", "savetodir": "b", "level0_width": 5000, "level0_height": 4000}
    clam = {"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0), "downsampled_level_dim": (1250, 1000)}
    clam |= {"level_dim": (1250, 1000), "name": "a", "save_path": "b"}
    grids: list[Grid] = []
    for name, attributes in (("trident", trident), ("clam", clam)):
        with h5py.File(tmp_path / name, "w") as file:
            file["coords"] = np.array([[0, 512]])
            file["coords"].attrs.update(attributes)
        grids.append(read_grid(tmp_path / name, slide_mpp=0.23))
    assert [(g.side, g.step, g.width, g.height, round(g.mpp, 3)) for g in grids] == [
        (512, 256, 5000, 4000, 0.46),
        (1024, 1024, 5000, 4000, 0.92),
    ]
    assert read_grid(tmp_path / "trident").slide_mpp == 0.25
    with pytest.raises(ValueError, match="do not give the size"):
        read_grid(tmp_path / "clam")


def test_only_the_same_work_is_taken_for_done(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path, made_from={"weights": "abc"})
    same: dict[str, Any] = {"made_from": {"weights": "abc"}}
    other = build_grid(SLIDE, shapely.box(30, 30, 700, 400), patch=32, overlap=0.25)
    assert check(path, **same) is None
    for change in ({"made_from": None}, {"encoder": "big"}, {"grid": other}, {"dtype": "float16"}):
        assert "of another encoder" in str(check(path, **(same | change)))
    assert "truncated, damaged or not an HDF5" in str(_damaged(path, path.read_bytes()[:-100]))
    assert "truncated, damaged or not an HDF5" in str(_damaged(path, b"text"))
    assert "there is no file" in str(check(tmp_path / "none.h5"))
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"], file["coords"] = VALUES, GRID.coordinates
    assert "was not written by regard" in str(check(tmp_path / "clam.h5"))


def _damaged(path: Path, content: bytes) -> str | None:
    path.with_name("b.h5").write_bytes(content)
    return check(path.with_name("b.h5"))


@pytest.mark.parametrize(
    ("name", "value", "reason"), [("features", np.nan, "not finite"), ("coords", 7, "coordinates")]
)
def test_what_was_changed_afterwards_is_not_taken(tmp_path: Path, name: str, value: float, reason: str) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file[name][3, 1] = value
    assert reason in str(check(tmp_path / "a.h5"))


@pytest.mark.parametrize(
    ("wrong", "own", "message"),
    [
        ((np.array([0]), np.full((1, 6), np.inf, np.float32)), {}, "not finite as float32, the first at x=0, y=0"),
        ((np.array([0]), np.full((1, 6), 1e5, np.float32)), {"dtype": "float16"}, "not finite as float16"),
        ((np.array([0]), np.ones((1, 5), np.float32)), {}, "gives 5 values"),
        ((np.array([0, 0]), np.ones((2, 6), np.float32)), {}, "were given twice"),
    ],
)
def test_bad_features_leave_what_was_there(tmp_path: Path, wrong: Any, own: dict[str, Any], message: str) -> None:
    write(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.h5", chunks=[wrong], **own)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == before


@pytest.mark.parametrize("most_bytes", [5_000, 100_000])
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, most_bytes: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    wide = (np.arange(len(GRID)), np.ones((len(GRID), 600), np.float32))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
        with pytest.raises(OSError, match=r"no space left to write .*a\.h5"):
            write(tmp_path / "a.h5", chunks=[wide], width=600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_two_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    def interrupted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, chunk in enumerate(chunks()):
            if number == 3:
                write(tmp_path / "a.h5", chunks=chunks(seed=1))
            yield chunk

    write(tmp_path / "a.h5", chunks=interrupted())
    assert check(tmp_path / "a.h5") is None
