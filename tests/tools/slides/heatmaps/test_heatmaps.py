"""Scores on a raster, scales, images and tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from uuid import UUID

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from flat_slide import FlatSlide, tissue_slide, whole_grid
from PIL import Image

from regard.datasets.slides.grid import Grid
from regard.tools.slides.heatmaps.contact_sheet import read_patch, top_patches, write_contact_sheet
from regard.tools.slides.heatmaps.files import slide_overview, write_heatmaps
from regard.tools.slides.heatmaps.overlay_tiff import write_overlay
from regard.tools.slides.heatmaps.patch_raster import percentiles, rasterize
from regard.tools.slides.heatmaps.patch_scores import write_score_table, write_score_tiles
from regard.tools.slides.heatmaps.rendering import outlines, overlay_heatmap
from regard.tools.slides.heatmaps.score_map import ScoreMap, palette, scale_of


def grid_of(coordinates: list[list[int]], side: int, step: int) -> Grid:
    indices = np.array(coordinates, dtype=np.int64).reshape(-1, 2)
    return Grid(indices, np.ones(len(indices)), 224, side, step, 0.5, 0.5, 400, 300)


def attention(count: int, seed: int = 0) -> np.ndarray:
    weights = np.random.default_rng(seed).random(count) ** 8
    return weights / weights.sum()


@pytest.mark.parametrize(("side", "step"), [(40, 40), (40, 20), (40, 28), (30, 40)])
def test_a_cell_has_the_mean_of_the_patches_over_it(side: int, step: int) -> None:
    grid = grid_of([[13 + step * x, 7 + step * y] for y in range(4) for x in range(5) if (x, y) != (2, 1)], side, step)
    values = np.random.default_rng(0).random(len(grid))
    total, count = np.zeros((300, 400)), np.zeros((300, 400))
    for (x, y), value in zip(grid.coordinates, values, strict=True):
        total[y : y + side, x : x + side] += value
        count[y : y + side, x : x + side] += 1
    raster = rasterize(grid, values)
    height, width = raster.values.shape
    cell = int(raster.cell)
    for row in range(height):
        for column in range(width):
            own = np.s_[raster.y + row * cell :, raster.x + column * cell :]
            own_total, own_count = total[own][:cell, :cell].sum(), count[own][:cell, :cell].sum()
            expected = own_total / own_count if own_count else np.nan
            np.testing.assert_allclose(raster.values[row, column], expected)


def test_patches_off_any_grid_are_in_their_place() -> None:
    grid = grid_of([[3, 5], [111, 78], [200, 31]], 40, 40)
    raster = rasterize(grid, np.array([1.0, 2.0, 3.0]))
    for (x, y), value in zip(grid.coordinates.astype(float), [1.0, 2.0, 3.0], strict=True):
        assert raster.at(np.array([x + 20]), np.array([y + 20])).item() == value
    assert np.isnan(raster.at(np.array([80.0, -5.0, 390.0]), np.array([50.0]))).all()


def test_a_lattice_stays_small_however_fine_the_grid() -> None:
    grid = grid_of([[0, 0], [99_999, 0], [50_001, 80_000]], 16, 1)
    raster = rasterize(grid, np.array([1.0, 2.0, 3.0]))
    assert max(raster.values.shape) <= 2049
    assert sorted(np.unique(raster.values[~np.isnan(raster.values)])) == [1.0, 2.0, 3.0]


def test_patches_that_were_not_read_are_empty() -> None:
    grid = grid_of([[0, 0], [40, 0]], 40, 40)
    np.testing.assert_array_equal(rasterize(grid, np.array([np.nan, 2.0])).values, [[np.nan, 2.0]])
    assert np.isnan(rasterize(grid, np.array([np.nan, np.nan])).values).all()
    with pytest.raises(ValueError, match="3 scores for 2 patches"):
        rasterize(grid, np.zeros(3))


def test_percentiles_do_not_depend_on_the_values_but_their_order() -> None:
    values = np.random.default_rng(0).random(50)
    np.testing.assert_allclose(percentiles(values), percentiles(np.exp(9 * values)))
    assert percentiles(np.zeros(4)).tolist() == [50.0] * 4
    assert percentiles(np.zeros(0)).shape == (0,)


def test_even_attention_has_no_hot_spot_on_the_absolute_scale_whatever_the_number_of_patches() -> None:
    scale = scale_of("attention", "absolute")
    for count in (7, 5000):
        noisy = np.random.default_rng(0).uniform(0.9, 1.1, count)
        score_map = ScoreMap("attention", noisy / noisy.sum())
        assert scale.share(score_map.on("absolute")).max() < 0.05
        assert score_map.on("percentile").max() > 90
    hot = ScoreMap("attention", np.eye(1, 5000)[0])
    assert scale.share(hot.on("absolute"))[0] == 1.0


def test_patches_without_a_score_do_not_count_as_even() -> None:
    score_map = ScoreMap("attention", np.array([0.5, 0.5, np.nan, np.nan]))
    np.testing.assert_array_equal(score_map.on("absolute"), [1.0, 1.0, np.nan, np.nan])


def test_the_heatmap_lies_over_its_patch_and_nowhere_else() -> None:
    grid = grid_of([[100, 60]], 80, 80)
    image = np.full((75, 100, 3), 200, np.uint8)
    painted = overlay_heatmap(image, 4.0, rasterize(grid, np.array([1.0])), scale_of("probability", "absolute"), 1.0)
    changed = np.argwhere((painted != 200).any(axis=-1))
    assert (changed.min(axis=0).tolist(), changed.max(axis=0).tolist()) == ([15, 25], [34, 44])
    assert painted[20, 30].tolist() == palette()[-1, :3].tolist()
    clear = overlay_heatmap(image, 4.0, rasterize(grid, np.array([1.0])), scale_of("probability", "absolute"), 0.0)
    assert (clear == 200).all()
    with pytest.raises(ValueError, match="give an opacity between 0 and 1"):
        overlay_heatmap(image, 4.0, rasterize(grid, np.array([1.0])), scale_of("probability", "absolute"), 50.0)


def test_outlines_have_the_holes_too() -> None:
    ring = shapely.box(0, 0, 100, 100).difference(shapely.box(40, 40, 60, 60))
    assert [len(one) for one in outlines(ring)] == [5, 5]
    assert len(outlines(shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(20, 0, 29, 9)]))) == 2
    assert outlines(None) == outlines(shapely.Polygon()) == []


def test_tops_do_not_overlap_and_come_in_order() -> None:
    slide = tissue_slide(600, 450)
    grid = whole_grid(slide, 40, step=20)
    values = attention(len(grid))
    chosen = top_patches(grid, values, 6)
    assert chosen[0] == values.argmax()
    assert sorted(values[chosen], reverse=True) == values[chosen].tolist()
    corners = grid.coordinates[chosen]
    apart = np.abs(corners[:, None] - corners[None]).max(axis=-1)
    assert (apart[~np.eye(len(chosen), dtype=bool)] >= grid.side).all()
    assert top_patches(grid, np.full(len(grid), np.nan), 6) == []


def test_a_patch_is_what_the_slide_has_there() -> None:
    slide = tissue_slide(600, 450)
    grid = whole_grid(slide, 40)
    x, y = grid.coordinates[3]
    np.testing.assert_array_equal(read_patch(slide, grid, 3, 40), slide.images[0][y : y + 40, x : x + 40])
    assert read_patch(slide, grid, 3, 10).shape == (10, 10, 3)
    assert slide.reads[-1][2:] == (10, 10, 1)  # from the level that suits


def test_a_contact_sheet_passes_over_damaged_patches(tmp_path: Path) -> None:
    slide = tissue_slide(600, 450)
    grid = whole_grid(slide, 40)
    score_map = ScoreMap("attention", attention(len(grid)))
    first, *others = top_patches(grid, score_map.values, 5)
    x, y = grid.coordinates[first].tolist()
    slide.damaged = (x + 5, y + 5, 4, 4)
    assert write_contact_sheet(tmp_path / "a.jpg", slide, grid, score_map, count=5, side_px=64) == others
    with Image.open(tmp_path / "a.jpg") as sheet:
        assert sheet.size == (4 * 72 + 8, 64 + 34 + 8 + 8)
    with pytest.raises(ValueError, match="0 patches"):
        write_contact_sheet(tmp_path / "a.jpg", slide, grid, score_map, count=0)


def test_a_image_of_a_slide_is_made_from_its_coarse_level() -> None:
    slide = tissue_slide(600, 450)
    image, downsample = slide_overview(slide, 150)
    assert (image.shape, downsample) == ((113, 150, 3), 4.0) or image.shape == (112, 150, 3)
    assert {read[-1] for read in slide.reads} == {1}
    image, downsample = slide_overview(slide, 5000)
    np.testing.assert_array_equal(image, slide.images[0])
    slide.damaged = (0, 0, 10, 10)
    assert (slide_overview(slide, 5000)[0][:256, :256] == 255).all()


def test_the_table_has_the_columns_of_wsinfer(tmp_path: Path) -> None:
    grid = grid_of([[0, 0], [40, 0], [80, 0]], 40, 40)
    score_maps = [
        ScoreMap("attention", np.array([0.75, 0.25, np.nan])),
        ScoreMap("prob_tumour", np.array([0.9, 0.1, np.nan]), "probability"),
    ]
    write_score_table(tmp_path / "a.csv", grid, score_maps)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert list(rows[0])[:5] == ["minx", "miny", "width", "height", "attention"]
    assert rows[0]["attention_relative"] == "1.5"
    assert [float(row["attention_percentile"] or -1) for row in rows] == [75.0, 25.0, -1.0]
    assert [row["prob_tumour"] for row in rows] == ["0.9", "0.1", ""]
    assert [row["minx"] for row in rows] == ["0", "40", "80"]


def test_the_tiles_are_valid_closed_locked_and_always_called_the_same(tmp_path: Path) -> None:
    grid = grid_of([[0, 0], [40, 0]], 40, 40)
    score_maps = [ScoreMap("attention", np.array([0.75, np.nan]))]
    for name in ("a", "b"):
        write_score_tiles(tmp_path / f"{name}.geojson", 'slide "<1>"', grid, score_maps)
    text = (tmp_path / "a.geojson").read_text()
    assert text == (tmp_path / "b.geojson").read_text()
    features = json.loads(text)["features"]
    for feature, (x, y) in zip(features, grid.coordinates.tolist(), strict=True):
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert shape.equals(shapely.box(x, y, x + 40, y + 40))
        assert feature["geometry"]["coordinates"][0][0] == feature["geometry"]["coordinates"][0][-1]
        assert (feature["properties"]["objectType"], feature["properties"]["isLocked"]) == ("tile", True)
        assert UUID(feature["id"]).version == 5
    assert features[0]["properties"]["measurements"]["attention"] == 0.75
    assert features[1]["properties"]["measurements"] == {}
    write_score_tiles(tmp_path / "none.geojson", "a", grid_of([], 40, 40), [])
    assert json.loads((tmp_path / "none.geojson").read_text())["features"] == []


def test_the_overlay_lies_over_the_slide_at_its_physical_size(tmp_path: Path) -> None:
    slide = tissue_slide(1200, 900)
    grid = whole_grid(slide, 60)
    values = np.full(len(grid), 0.5)
    write_overlay(
        tmp_path / "a.tiff",
        slide,
        rasterize(grid, values),
        scale_of("probability", "absolute"),
        downsample=2,
        opacity=1.0,
    )
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        assert [page.shape for page in file.pages] == [(450, 600, 3), (225, 300, 3), (113, 150, 3)]
        assert [page.is_reduced for page in file.pages] == [False, True, True]
        across, unit = file.pages[0].tags["XResolution"].value, file.pages[0].tags["ResolutionUnit"].value
        assert (across[0] / across[1], unit) == (1e4 / (2 * 0.5), 3)
        finest = file.pages[0].asarray().astype(int)
    x, y = grid.coordinates[0].tolist()
    middle = palette()[128, :3].astype(int)
    assert np.abs(finest[y // 2 + 10, x // 2 + 10] - middle).max() < 20
    assert np.abs(finest[y // 2 - 10, x // 2 + 100] - slide.images[0][y - 20, x + 200]).max() < 60
    assert finest[0, 0].min() > 235


def test_openslide_takes_the_overlay_for_a_slide(tmp_path: Path) -> None:
    slide = tissue_slide(1200, 900)
    grid = whole_grid(slide, 60)
    raster = rasterize(grid, np.ones(len(grid)))
    write_overlay(tmp_path / "a.tiff", slide, raster, scale_of("probability", "absolute"), downsample=2)
    with openslide.OpenSlide(tmp_path / "a.tiff") as found:
        assert found.level_count == 3
        assert float(found.properties["openslide.mpp-x"]) == pytest.approx(1.0)


def test_the_overlay_of_a_slide_without_known_size_and_with_damage_is_written(tmp_path: Path) -> None:
    slide = tissue_slide(600, 450, mpp=None, damaged=(0, 0, 9, 9))
    grid = whole_grid(slide, 60)
    raster = rasterize(grid, np.ones(len(grid)))
    write_overlay(tmp_path / "a.tiff", slide, raster, scale_of("probability", "absolute"), downsample=1)
    assert tifffile.imread(tmp_path / "a.tiff").shape == (450, 600, 3)
    with pytest.raises(ValueError, match="downsample is 0"):
        write_overlay(tmp_path / "a.tiff", slide, raster, scale_of("probability", "absolute"), downsample=0)


def test_all_files_of_a_heatmap_are_there_or_none_is_begun(tmp_path: Path) -> None:
    slide = tissue_slide(600, 450)
    grid = whole_grid(slide, 40)
    score_maps = [ScoreMap("attention", attention(len(grid)))]
    name = "é \"<b>\" #2 100% 'x'"
    files = write_heatmaps(tmp_path, name, slide, grid, score_maps, regions=shapely.box(90, 70, 500, 380), top=3)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == sorted(files.values())
    with Image.open(tmp_path / files["heatmap_absolute"]) as image:
        assert image.width == 600
    with pytest.raises(ValueError, match="0 patches came with 1 scores"):
        write_heatmaps(tmp_path, name, slide, grid_of([], 40, 40), [ScoreMap("attention", np.zeros(0))])


def test_a_failure_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    class Broken(FlatSlide):
        def read(self, *index: int) -> np.ndarray:
            raise OSError("the disk went away")

    slide = Broken(np.zeros((300, 300, 3), np.uint8))
    grid = grid_of([[0, 0]], 40, 40)
    with pytest.raises(OSError, match="went away"):
        write_overlay(
            tmp_path / "a.tiff", slide, rasterize(grid, np.ones(1)), scale_of("probability", "absolute"), downsample=1
        )
    assert list(tmp_path.iterdir()) == []
