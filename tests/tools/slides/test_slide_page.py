"""The page of a slide: its tiles, and what it does in a browser, from disk and over `regard view`."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import shapely
from flat_slide import FlatSlide, tissue_slide, whole_grid
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

from regard.tools.look.view import serve
from regard.tools.slides import slide_page
from regard.tools.slides.heatmaps.score_map import ScoreMap
from regard.tools.slides.result import SlideResult
from regard.tools.slides.slide_page import write_slide_page
from regard.tools.slides.slide_tiles import best_level, write_tiles

NAME = "é \"<b>\" #2 100% 'x'"
HOSTILE = "</script><img src=x onerror=alert(1)>"


def tile(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / f"{name}.jpg") as found:
        return np.asarray(found).astype(int)


def test_each_zoom_shows_the_whole_slide_in_its_place(tmp_path: Path) -> None:
    slide = tissue_slide(1300, 900)
    pyramid = write_tiles(tmp_path, slide, 8192)
    assert (pyramid.downsample, pyramid.finest, pyramid.damaged) == (1.0, 2, 0)
    files = {str(path.relative_to(tmp_path).with_suffix("")) for path in tmp_path.rglob("*.jpg")}
    assert files == {f"{zoom}/{column}_{row}" for zoom, column, row in pyramid.tiles}
    assert {"0/0_0", "2/2_1"} <= files
    assert "2/3_0" not in files  # beyond the slide
    np.testing.assert_allclose(tile(tmp_path, "2/1_0"), slide.images[0][:512, 512:1024], atol=60)
    coarse = np.asarray(Image.fromarray(slide.images[0]).reduce(4)).astype(int)
    assert np.abs(tile(tmp_path, "0/0_0")[: coarse.shape[0], : coarse.shape[1]] - coarse).mean() < 5


def test_a_large_slide_is_shown_from_a_coarse_level(tmp_path: Path) -> None:
    slide = FlatSlide(np.full((1800, 2400, 3), 90, np.uint8), downsamples=(1, 4))
    pyramid = write_tiles(tmp_path, slide, 700)
    assert pyramid.downsample == 4
    assert {read[-1] for read in slide.reads} == {1}
    with pytest.raises(ValueError, match="give 512 at least"):
        write_tiles(tmp_path, slide, 100)


@pytest.mark.parametrize(
    ("downsample", "expected"),
    [(1.0, (0, 1)), (2.0, (0, 2)), (3.5, (1, 1)), (6.0, (1, 2)), (13.0, (2, 1)), (40.0, (2, 3))],
)
def test_the_level_with_the_least_reading_is_taken(downsample: float, expected: tuple[int, int]) -> None:
    slide = FlatSlide(np.zeros((64, 64, 3), np.uint8), downsamples=(1, 4, 16))
    assert best_level(slide, downsample) == expected


def test_white_and_damaged_tiles_are_left_out(tmp_path: Path) -> None:
    pixels = np.full((1024, 1024, 3), 255, np.uint8)
    pixels[:512, :512] = 90
    pixels[512:, 512:] = 120
    pyramid = write_tiles(tmp_path, FlatSlide(pixels, damaged=(600, 600, 9, 9)))
    assert (set(pyramid.tiles), pyramid.damaged) == ({(1, 0, 0), (0, 0, 0)}, 1)
    assert write_tiles(tmp_path / "white", FlatSlide(np.full((900, 900, 3), 255, np.uint8))).tiles == []


def written(out: Path, **named: Any) -> str:
    slide = tissue_slide(1200, 900)
    grid = whole_grid(slide, 60, step=30)
    weights = np.exp(-(((grid.coordinates - [480, 360]) / 60) ** 2).sum(axis=1)) + 1e-3
    weights[0] = np.nan
    score_maps = [
        ScoreMap("attention", weights / np.nansum(weights)),
        ScoreMap(f"prob_{HOSTILE}", weights / 2, "probability"),
    ]
    result = SlideResult(
        id=NAME,
        path=f"/slides/{NAME}.svs",
        status="done",
        warnings=(HOSTILE,),
        probabilities={"normal": 0.2, "tumour": 0.8},
        spread={"tumour": 0.05},
        patches=len(grid),
    )
    regions = shapely.Point(600, 450).buffer(380)
    return write_slide_page(out, result, slide, grid, score_maps, regions=regions, top=4, **named)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run with space #1")
    written(out, notes=["no diagnosis"])
    return out


@pytest.fixture(params=["disk", "view"])
def address(out: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    page = f"pages/{NAME}/index.html"
    if request.param == "disk":
        yield (out / page).as_uri()
        return
    server = serve(out, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{quote(page)}"
    server.shutdown()
    thread.join()
    server.server_close()


def colour_at(browser: Any, x: int, y: int) -> list[int]:
    """Of the middle of the canvas while it shows a small square around a index of the slide; what its layers show."""
    script = """
        const [x, y] = arguments;
        const done = arguments[2];
        window.regardSlide.lookAt(x - 4, y - 4, 8, 8);
        setTimeout(() => done([...document.querySelector('#canvas').children].length), 250);
    """
    browser.driver.execute_async_script(script, x, y)
    box = browser.run(
        "const b = document.querySelector('#canvas').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
    )
    ratio = browser.run("return window.devicePixelRatio")
    with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as shot:
        return list(
            shot.convert("RGB").getpixel((round((box[0] + box[2] / 2) * ratio), round((box[1] + box[3] / 2) * ratio)))
        )


def test_the_slide_lies_under_its_heatmap_and_both_in_their_place(browser: Any, address: str) -> None:
    browser.open(address)
    browser.wait("window.regardSlide")
    slide = tissue_slide(1200, 900)
    browser.set("#opacity", 0, "input")
    for x, y in ((606, 456), (318, 702)):
        np.testing.assert_allclose(colour_at(browser, x, y), slide.images[0][y, x], atol=25)
    browser.set("#opacity", 100, "input")
    browser.run(
        "for (const box of document.querySelectorAll('#side input[type=checkbox]')) if (box.checked) box.click()"
    )
    hot, cold = colour_at(browser, 495, 385), colour_at(browser, 800, 600)
    assert hot[0] > hot[2] + 60  # red
    assert cold[2] > cold[0] + 60  # blue
    browser.set("#choose-scale", "percentile", "change")
    assert browser.texts("#bar .note") == ["percentile within this slide"]
    outside = colour_at(browser, 606, 120)
    np.testing.assert_allclose(outside, slide.images[0][120, 606], atol=25)


def test_the_score_under_the_pointer_is_told_and_the_bar_has_a_length(browser: Any, out: Path) -> None:
    browser.open((out / f"pages/{NAME}/index.html").as_uri())
    browser.wait("window.regardSlide")
    assert re.fullmatch(r"(1|2|5)0* (µm|mm)", browser.texts("#scale")[0])
    browser.driver.execute_async_script("window.regardSlide.lookAt(475, 355, 20, 20); setTimeout(arguments[0], 300)")
    canvas = browser.driver.find_element("id", "canvas")
    ActionChains(browser.driver).move_to_element(canvas).move_by_offset(3, 3).perform()
    words = browser.wait("(text => text.includes('attention:') && text)(document.querySelector('#under').innerText)")
    assert re.search(
        "x 485, y 36[45] px\nattention: [\\d.]+\N{MULTIPLICATION SIGN} uniform, percentile \\d+\nprob_", words
    )
    ActionChains(browser.driver).scroll_from_origin(
        ScrollOrigin.from_element(canvas),
        0,
        240,
    ).perform()
    browser.wait("window.regardSlide.plot.x_range.end - window.regardSlide.plot.x_range.start > 30")


def test_names_of_strangers_stay_text(browser: Any, out: Path) -> None:
    page = (out / f"pages/{NAME}/index.html").read_text()
    assert HOSTILE not in page
    assert page.count("</script>") == 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    browser.open((out / f"pages/{NAME}/index.html").as_uri())
    browser.wait("window.regardSlide")
    assert browser.texts("h1") == [NAME]
    assert browser.texts(".warning") == ["no diagnosis", HOSTILE]
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("return [...document.images].every(e => e.complete && e.naturalWidth > 0)")
    assert browser.driver.title.startswith(NAME)


def test_without_bokeh_the_page_is_an_overview(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slide_page, "bokeh_script", lambda: None)
    page = written(tmp_path)
    browser.open((tmp_path / page).as_uri())
    browser.wait("document.querySelector('#canvas > img')")
    assert browser.run("return document.querySelector('#canvas > img').naturalWidth") == 1024
    assert any('pip install "regard[wsi]"' in text for text in browser.texts(".warning"))


def test_writing_again_replaces_the_page_and_a_failure_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / written(tmp_path, max_px=512)
    (folder.parent / "old.txt").touch()
    before = folder.stat().st_ino
    written(tmp_path, max_px=512)
    assert not (folder.parent / "old.txt").exists()
    assert folder.stat().st_ino != before

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(slide_page, "build_page", fail)
    with pytest.raises(OSError, match="full"):
        written(tmp_path, max_px=512)
    assert folder.is_file()
    assert sorted(path.name for path in folder.parents[1].iterdir() if path.name.startswith(".")) == []


def test_a_slide_without_tissue_has_a_page_too(browser: Any, tmp_path: Path) -> None:
    slide = FlatSlide(np.full((300, 400, 3), 250, np.uint8), mpp=None)
    result = SlideResult(id="empty", path="empty.svs", status="empty", reason="no tissue was found")
    page = write_slide_page(tmp_path, result, slide)
    browser.open((tmp_path / page).as_uri())
    browser.wait("window.regardSlide")
    assert browser.texts("#scale")[0].endswith(" px")
    assert "no tissue was found" in browser.texts("#head")[0]
    assert browser.texts("#bar") == []
