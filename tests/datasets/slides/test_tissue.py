from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from slide_stand_in import ArraySlide

from regard.datasets.slides.geojson import read_regions, write_regions
from regard.datasets.slides.segmenter import load_segmenter
from regard.datasets.slides.shapes import shapely
from regard.datasets.slides.tissue import find_tissue

HEIGHT, WIDTH = 1024, 1536
Y, X = np.mgrid[:HEIGHT, :WIDTH]
INSIDE = ((X - 700) / 500) ** 2 + ((Y - 500) / 350) ** 2 < 1
BOX = (X >= 400) & (X < 1000) & (Y >= 300) & (Y < 700)


def stained(inside: np.ndarray, glass: int = 244) -> np.ndarray:
    tile = data.immunohistochemistry()
    tile = np.concatenate([tile, tile[:, ::-1]], 1)
    tile = np.concatenate([tile, tile[::-1]], 0)
    tile = np.concatenate([tile, tile], 1)[:HEIGHT, :WIDTH]
    return np.where(inside[..., None], tile, np.uint8(glass))


def drawn(regions: Any) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for one in shapely.get_parts(regions):
        rings = [np.round(shapely.get_coordinates(ring)).astype(np.int32) for ring in (one.exterior, *one.interiors)]
        cv2.fillPoly(mask, rings, 1)
    return mask.astype(bool)


def overlap(regions: Any, truth: np.ndarray) -> float:
    found = drawn(regions)
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize(
    ("preset", "mpp"), [("biopsy", 0.25), ("biopsy", 0.5), ("biopsy", None), ("resection", 0.5), ("faint", 0.5)]
)
def test_pale_and_dark_stain_are_found_as_one_piece(preset: str, mpp: float | None) -> None:
    tissue = find_tissue(ArraySlide(stained(INSIDE), mpp=mpp), preset=preset)
    assert (len(tissue.pieces), tissue.regions.is_valid, tissue.pen, tissue.edge) == (1, True, 0, 0)
    assert overlap(tissue.regions, INSIDE) > 0.96


@pytest.mark.parametrize("glass", [230, 244, 255])
def test_empty_glass_has_no_tissue(glass: int) -> None:
    pixels = np.random.default_rng(0).normal(glass, 2, (600, 600, 3)).clip(0, 255).astype(np.uint8)
    tissue = find_tissue(ArraySlide(pixels))
    assert tissue.regions.is_empty
    assert tissue.share == 0
    assert tissue.pieces == []


def test_a_slide_that_is_all_tissue_stays_whole() -> None:
    assert find_tissue(ArraySlide(stained(np.ones_like(INSIDE)))).share > 0.97


def test_the_tint_of_the_glass_is_no_tissue() -> None:
    tinted = (stained(INSIDE) * np.array([1, 0.97, 0.88])).astype(np.uint8)
    assert overlap(find_tissue(ArraySlide(tinted)).regions, INSIDE) > 0.96


def test_small_pieces_are_kept_in_a_biopsy_only() -> None:
    slide = ArraySlide(stained(((X % 500 - 250) ** 2 + (Y % 500 - 250) ** 2 < 80**2) & (Y < 1000)))
    assert [len(find_tissue(slide, preset=preset).pieces) for preset in ("biopsy", "resection")] == [6, 0]


INKS = {"blue": (30, 60, 190), "pale blue": (100, 135, 225), "green": (30, 140, 80), "red": (215, 30, 40)}
INKS |= {"black": (25, 25, 30)}


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_taken_out_and_told(ink: str) -> None:
    line = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.line(line, (150, 120), (1100, 900), 255, 130)
    weight = cv2.GaussianBlur(line, (0, 0), 8)[..., None] / 255
    pixels = (stained(INSIDE) * (1 - weight) + np.array(INKS[ink]) * weight).astype(np.uint8)
    tissue = find_tissue(ArraySlide(pixels, mpp=1.0))
    assert overlap(tissue.regions, INSIDE & (line == 0)) > 0.92
    assert tissue.pen == pytest.approx((line > 0).mean(), rel=0.25)
    assert tissue.marks.area / (HEIGHT * WIDTH) == pytest.approx(tissue.pen, rel=0.02)
    assert find_tissue(ArraySlide(pixels, mpp=1.0), pens=False).share > tissue.share + 0.05


def test_black_and_grey_borders_of_a_scan_are_no_tissue() -> None:
    pixels = stained(INSIDE)
    pixels[:, :100] = 0
    pixels[-120:] = 128
    pixels[:, -100:] = np.linspace(220, 130, 100)[None, :, None]
    tissue = find_tissue(ArraySlide(pixels))
    assert overlap(tissue.regions, INSIDE) > 0.95
    assert tissue.edge > 0.2


def test_what_lies_outside_the_bounds_is_not_looked_at() -> None:
    tissue = find_tissue(ArraySlide(stained(np.ones_like(INSIDE)), bounds=(400, 300, 600, 400)))
    assert tissue.share > 0.9
    assert tissue.regions.within(shapely.box(396, 296, 1004, 704))


def test_holes_stay_where_they_are_large() -> None:
    holed = find_tissue(ArraySlide(stained(BOX & ~((X - 700) ** 2 + (Y - 500) ** 2 < 160**2)))).pieces[0]
    filled = find_tissue(ArraySlide(stained(BOX & ~((X - 700) ** 2 + (Y - 500) ** 2 < 40**2)))).pieces[0]
    assert (len(holed.interiors), len(filled.interiors)) == (1, 0)


def test_files_say_where_to_look_and_where_not(tmp_path: Path) -> None:
    slide = ArraySlide(stained(INSIDE))
    found = find_tissue(slide)
    write_regions(tmp_path / "tissue.geojson", found.to_geojson())
    assert find_tissue(slide, regions=tmp_path / "tissue.geojson").regions.area == pytest.approx(found.regions.area)
    assert read_regions(tmp_path / "tissue.geojson")[0].tissue_id == 0
    left, middle = shapely.box(0, 0, 700, HEIGHT), shapely.box(650, 450, 750, 550)
    part = find_tissue(slide, include=left, exclude=middle).regions
    assert part.area == pytest.approx(found.regions.intersection(left).area - 50 * 100)
    assert find_tissue(slide, include=shapely.box(0, 0, 9, 9)).regions.is_empty


def test_the_image_shows_outlines() -> None:
    slide = ArraySlide(stained(BOX))
    image = find_tissue(slide).image(slide.pixels[::4, ::4])
    green = image[..., 1].astype(int) - image[..., 0] > 40
    assert green[100:150, 98:103].any()
    assert not green[140:160, 120:240].any()


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(ValueError, match="'tiny'; give biopsy, resection, faint"):
        find_tissue(ArraySlide(stained(BOX)), preset="tiny")


def dark(image: np.ndarray, mpp: float) -> np.ndarray:
    assert mpp == 2.0
    return image.mean(2) < 230


dark.mpp, dark.tile, dark.margin = 2.0, 128, 16  # type: ignore[attr-defined]


def test_a_segmenter_sees_the_slide_in_tiles_of_its_own_scale() -> None:
    slide = ArraySlide(np.where(BOX[..., None], np.uint8([200, 100, 160]), np.uint8(244)), downsamples=(1, 2))
    assert overlap(find_tissue(slide, segmenter=dark).regions, BOX) > 0.98


def test_a_segmenter_has_a_name_or_a_trusted_file(tmp_path: Path) -> None:
    class Threshold(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return -pixels.mean(1, keepdim=True)

    with pytest.warns(FutureWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(Threshold()), str(tmp_path / "net.pt"))
    with pytest.raises(ValueError, match="trust"):
        load_segmenter(str(tmp_path / "net.pt"))
    with pytest.raises(ValueError, match="does not exist"):
        load_segmenter(str(tmp_path / "other.pt"), trust=True)
    network = load_segmenter(str(tmp_path / "net.pt"), trust=True, mpp=2.0, tile=128)
    pixels = np.where(BOX[..., None], np.uint8([120, 60, 100]), np.uint8(244))
    assert overlap(find_tissue(ArraySlide(pixels), segmenter=network).regions, BOX) > 0.97
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="not a TorchScript file"):
        load_segmenter(str(tmp_path / "text.pt"), trust=True)
    assert load_segmenter("numpy:asarray") is np.asarray
    for wrong in ("hest", "numpy:nothing", "no.such:thing", "numpy:pi"):
        with pytest.raises(ValueError, match="segmenter"):
            load_segmenter(wrong)


def test_a_segmenter_that_returns_no_mask_is_named() -> None:
    with pytest.raises(ValueError, match="the mask must have its size"):
        find_tissue(ArraySlide(stained(BOX)), segmenter=lambda image, mpp: np.zeros(3))
