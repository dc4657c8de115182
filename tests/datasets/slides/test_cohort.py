from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.datasets.slides.cohort import render_slide, write_cohort, write_real
from regard.datasets.slides.opening import open_slide
from regard.datasets.slides.textures import EMBEDDED_SLIDE, amounts_of, load_textures, stained
from regard.datasets.slides.tissue import find_tissue

SIZE = (768, 640)


def test_a_number_is_one_slide_and_another_number_or_part_is_another() -> None:
    first = render_slide(3, "test", size=SIZE)
    assert np.array_equal(first.pixels, render_slide(3, "test", size=SIZE).pixels)
    assert not np.array_equal(first.tissue, render_slide(5, "test", size=SIZE).tissue)
    assert not np.array_equal(first.tissue, render_slide(3, "train", size=SIZE).tissue)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_odd_slides_have_lesions_which_lie_in_tissue(number: int) -> None:
    slide = render_slide(number, "test", size=SIZE)
    assert slide.pixels.shape == (640, 768, 3)
    assert 0.25 < slide.tissue.mean() < 0.55
    assert slide.label == ("lesion" if number % 2 else "normal")
    assert (slide.lesion & ~slide.tissue).sum() == 0
    share = slide.lesion.sum() / slide.tissue.sum()
    assert 0.005 < share < 0.21 if number % 2 else share == 0
    assert set(np.unique(slide.mask())) == ({0, 128, 255} if number % 2 else {0, 128})


def test_training_and_testing_share_no_texture_and_lesions_have_the_mean_stains_of_tissue() -> None:
    train, test = load_textures("train"), load_textures("test")
    for one, other in ((train.tissue, test.tissue), (train.lesion, test.lesion)):
        rows = [{row.tobytes() for row in part[:, ::16].reshape(-1, 160)} for part in (one, other)]
        assert not rows[0] & rows[1]
    for part in (train, test):
        np.testing.assert_allclose(part.lesion.mean((0, 1, 2)), part.tissue.mean((0, 1, 2)), rtol=0.08)


def test_amounts_of_stain_are_what_was_stained() -> None:
    amounts = np.random.default_rng(0).uniform(0, 1, (6, 5, 2)).astype(np.float32)
    pixels = stained(amounts, white=255.0).round().astype(np.uint8)
    np.testing.assert_allclose(amounts_of(pixels), amounts, atol=0.03)


def test_tissue_is_found_where_it_was_laid(tmp_path: Path) -> None:
    slide = render_slide(4, "test", size=(1024, 1024))
    assert not slide.pen
    Image.fromarray(slide.pixels).save(tmp_path / "slide.png")
    with closing(open_slide(tmp_path / "slide.png", mpp=0.5)) as opened:
        found = find_tissue(opened, preset="resection")
    area = slide.tissue.sum() * 64
    assert found.regions.area == pytest.approx(area, rel=0.2)


def test_a_cohort_is_pyramids_with_masks_and_labels_and_what_is_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(number: int, part: str) -> object:
        return render_slide(number, part, size=(512, 512))

    monkeypatch.setattr("regard.datasets.slides.cohort.render_slide", small)
    files = list(write_cohort(tmp_path, "test", 2))
    assert [file.name for file in files] == ["test_000.svs", "test_001.svs"]
    with closing(open_slide(files[1])) as slide:
        assert (slide.mpp, slide.objective) == (0.5, 20)
        assert [level.width for level in slide.levels] == [512, 128]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "test_001_mask.png")), small(1, "test").mask())
    before = files[0].stat().st_mtime_ns
    assert list(write_cohort(tmp_path, "test", 1)) == files[:1]
    assert files[0].stat().st_mtime_ns == before
    labels = (tmp_path / "labels.csv").read_text().split()
    assert labels == ["slide_id,case_id,label", "test_000,test_000,normal", "test_001,test_001,lesion"]


def test_bands_of_the_real_slide_are_normal_in_every_view(tmp_path: Path) -> None:
    files = write_real(tmp_path, "test", views=2)
    bands = (1, 2, 3)  # 0 is almost empty
    assert [file.stem for file in files] == [f"test_real_{band}{view}" for band in bands for view in (0, 1)]
    assert (tmp_path / "labels.csv").read_text().count("normal") == 6


@pytest.mark.parametrize("size", [(504, 512), (515, 512)])
def test_a_slide_that_is_too_small_or_odd_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 512 pixels wide and high, in multiples of 8"):
        render_slide(0, size=size)


def test_the_real_slide_comes_along() -> None:
    with closing(open_slide(EMBEDDED_SLIDE)) as slide:
        assert (slide.levels[0].width, slide.levels[0].height, slide.mpp) == (2220, 2967, pytest.approx(0.499))
