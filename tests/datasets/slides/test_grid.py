import re

import numpy as np
import pytest
from slide_stand_in import ArraySlide

from regard.datasets.slides.coverage import covered_area
from regard.datasets.slides.grid import build_grid
from regard.datasets.slides.shapes import shapely

SHAPE = shapely.Point(300, 260).buffer(180).difference(shapely.Point(320, 250).buffer(60))
SHAPE = SHAPE.union(shapely.box(500, 400, 640, 560))


def slide(mpp: float | None = 0.5, **own: object) -> ArraySlide:
    return ArraySlide(np.empty((560, 640, 3), np.uint8), mpp=mpp, **own)  # type: ignore[arg-type]


def shares(shape: object, corners: np.ndarray, side: int) -> list[float]:
    return [shapely.box(x, y, x + side, y + side).intersection(shape).area / side**2 for x, y in corners.tolist()]


@pytest.mark.parametrize("seed", range(3))
def test_the_area_in_each_cell_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, rows = (np.sort(rng.uniform(50, 600, 7)) for _ in range(2))
    found = covered_area(SHAPE, columns, rows)
    for row, column in np.ndindex(6, 6):
        cell = shapely.box(columns[column], rows[row], columns[column + 1], rows[row + 1])
        assert found[row, column] == pytest.approx(SHAPE.intersection(cell).area, abs=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("least", [0.0, 0.25, 1.0])
def test_just_the_patches_with_enough_tissue_are_kept(overlap: float, least: float) -> None:
    grid = build_grid(slide(), SHAPE, patch=64, overlap=overlap, min_tissue=least)
    corners = [(x, y) for y in range(0, 560, grid.step) for x in range(0, 640, grid.step)]
    of_all = np.array(shares(SHAPE, np.array(corners), 64)).round(9)
    kept = of_all >= least if least else of_all > 0
    np.testing.assert_array_equal(grid.coordinates, np.array(corners)[kept])
    np.testing.assert_allclose(grid.tissue, of_all[kept], atol=1e-8)


@pytest.mark.parametrize("mpp", [0.2274, 0.25, 0.2908, 0.46, 0.5, 1.0])
def test_a_patch_has_its_microns_on_every_scanner(mpp: float) -> None:
    grid = build_grid(slide(mpp), shapely.box(0, 0, 640, 560), patch=128, mpp=0.5)
    assert grid.side * mpp == pytest.approx(64, abs=mpp / 2)
    assert grid.mpp * grid.patch == pytest.approx(grid.side * mpp)


def test_pieces_share_one_lattice() -> None:
    pieces = shapely.MultiPolygon([shapely.box(10, 10, 130, 130), shapely.box(133, 20, 300, 300)])
    grid = build_grid(slide(), pieces, patch=64)
    assert (grid.coordinates % 64 == 0).all()
    assert len(np.unique(grid.coordinates, axis=0)) == len(grid)


def test_patches_over_the_edge_are_kept_and_measured_whole() -> None:
    grid = build_grid(slide(), shapely.box(-500, -500, 9999, 9999), patch=100, min_tissue=0.0)
    assert len(grid) == 7 * 6
    assert grid.tissue[-1] == pytest.approx(0.4 * 0.6)


def test_the_lattice_starts_at_the_scanned_part_or_at_its_tile() -> None:
    own = {"bounds": (130, 70, 400, 300), "tile": (64, 64)}
    for align, corner in ((False, [130, 70]), (True, [128, 64])):
        grid = build_grid(slide(**own), shapely.box(130, 70, 530, 370), patch=64, align=align)
        assert grid.coordinates[0].tolist() == corner


def test_what_is_excluded_is_no_tissue() -> None:
    grid = build_grid(slide(), shapely.box(0, 0, 640, 560), patch=64, exclude=shapely.box(0, 0, 320, 560))
    assert grid.coordinates[:, 0].min() == 320


def test_no_tissue_gives_a_grid_without_patches() -> None:
    for regions in (shapely.MultiPolygon(), shapely.box(2000, 2000, 2100, 2100)):
        grid = build_grid(slide(), regions)
        assert (len(grid), grid.coordinates.shape, grid.coordinates.dtype) == (0, (0, 2), np.int64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"overlap": 1.0}, "give a share of the side"),
        ({"overlap": float("nan")}, "give a share of the side"),
        ({"min_tissue": 25.0}, "min_tissue is 25"),
        ({"patch": 0}, "patch is 0"),
        ({"mpp": 0.0}, "such as 0.5 for 20x"),
        ({"mpp": 1e-4}, "smaller than one pixel"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build_grid(slide(), SHAPE, **wrong)  # type: ignore[arg-type]


def test_a_slide_without_microns_per_pixel_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"does not hold its microns per pixel; give --slide_mpp.*40x about 0\.25"):
        build_grid(slide(None), SHAPE)
