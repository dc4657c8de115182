"""The report of a run over slides, in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regard.tools.slides.result import SlideResult, write_result
from regard.tools.slides.slide_report import write_report

HOSTILE = "</script><img src=x onerror=alert(1)>"
NAME = "é \"<b>\" #2 100% 'x'"


def slides() -> list[SlideResult]:
    found = [
        SlideResult(
            id=f"case {index}",
            path=f"/slides/case {index}.svs",
            status="done",
            label="tumour" if index % 3 == 0 else "normal",
            truth="tumour" if index % 2 == 0 else None,
            probabilities={"normal": index / 120, "tumour": 1 - index / 120},
            spread={"tumour": 0.1},
            tissue=0.25,
            patches=10 * index,
            seconds={"tissue": 0.5, "features": index},
        )
        for index in range(120)
    ]
    strange = {"thumbnail": f"thumbnails/{NAME}.jpg", "page": f"pages/{NAME}/index.html", "odd": "javascript:alert(1)"}
    found.append(SlideResult(id=NAME, path=HOSTILE, status="empty", warnings=(HOSTILE,), files=strange))
    found.append(SlideResult(id="bad", path="bad.svs", status="failed", reason=f"cannot be read: {HOSTILE}"))
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("a run #1")
    for result in slides():
        write_result(out, result)
    (out / "thumbnails").mkdir()
    Image.new("RGB", (40, 30), "pink").save(out / "thumbnails" / f"{NAME}.jpg")
    (out / "slides" / "odd.json").write_text("{")
    settings = {"mpp": 0.5, "stages": ["grid"], "head": HOSTILE, "out": out, "nothing": float("nan")}
    notes = ["A demonstration, not a diagnosis."]
    write_report(out, title=f"Slides {HOSTILE}", settings=settings, versions={"regard": "0.1.0"}, notes=notes)
    return out


@pytest.fixture
def page(browser: Any, out: Path) -> Any:
    browser.open((out / "report.html").as_uri())
    return browser


def names(page: Any) -> list[str]:
    return [text.split("\n")[0] for text in page.texts("th.id")]


def test_text_of_strangers_stays_text_and_names_become_addresses(page: Any, out: Path) -> None:
    markup = (out / "report.html").read_text()
    assert HOSTILE not in markup
    assert markup.count("</script>") == 2
    assert page.texts("h1") == [f"Slides {HOSTILE}"]
    page.set("#filter-text", "onerror", "input")
    assert sorted(names(page)) == ["bad", NAME]
    assert page.texts(".reason") == [f"cannot be read: {HOSTILE}"]
    assert page.run("return document.querySelectorAll('img[src=x]').length") == 0
    page.wait("document.querySelector('.thumbnail img').naturalWidth === 40")
    page.run("document.querySelectorAll('.more').forEach(e => e.click())")
    hrefs = page.run("return [...document.querySelectorAll('a')].map(e => e.href)")
    assert hrefs
    assert all(href.startswith(out.as_uri() + "/") for href in hrefs)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|DOMParser", markup)
    assert not re.search(r"https?:", markup)


def test_the_page_tells_the_whole_first(page: Any) -> None:
    head = page.texts("#head")[0]
    assert "A demonstration, not a diagnosis." in head
    assert "123 slides" in head
    assert "2 failed" in head  # one of them a file that cannot be read
    assert "20 of 60 predicted correctly" in head
    page.run("document.querySelectorAll('#foot details').forEach(e => { e.open = true })")
    assert 'stages\n["grid"]' in page.texts("#foot")[0]


def test_rows_are_sorted_by_a_click_on_the_head(page: Any) -> None:
    assert names(page)[:3] == ["bad", "case 0", "case 1"]  # numbers in names count as numbers
    click = "document.querySelector(`thead button[data-key=${arguments[0]}]`).click()"
    page.run(click, "patches")
    assert names(page)[:2] == ["case 119", "case 118"]
    page.run(click, "class")
    assert names(page)[0] == "case 0"
    assert page.texts("td.number")[0] == "1.000"
    page.run(click, "class")
    assert names(page)[0] == "case 119"
    assert page.run("return document.querySelector('th[aria-sort=ascending]').innerText").startswith("p(tumour)")


def test_rows_are_filtered_and_come_in_pages(page: Any) -> None:
    assert len(names(page)) == 50
    page.run("[...document.querySelectorAll('.pages button')].at(-1).click()")
    assert page.texts(".pages")[0].split("\n")[1] == "page 2 of 3"
    page.set("#filter-label", "tumour", "change")
    assert page.texts("#count") == ["40 of 123 slides"]
    page.set("#filter-label", "", "change")
    page.set("#filter-status", "failed", "change")
    assert sorted(names(page)) == ["bad", "odd"]
    page.set("#filter-status", "", "change")
    page.run("document.querySelector('#filter-warned').click()")
    assert names(page) == [NAME]


def test_what_lies_behind_a_row_opens_at_a_click(page: Any) -> None:
    page.set("#filter-text", "case 7.svs", "input")
    page.run("document.querySelector('.more').click()")
    detail = page.texts(".detail")[0]
    assert "/slides/case 7.svs" in detail
    assert "features, s\n7.00" in detail
    assert page.texts(".probability")[0] == "tumour\n0.942 \N{PLUS-MINUS SIGN} 0.10"
    page.run("document.querySelector('.more').click()")
    assert page.texts(".detail") == []


def test_a_run_without_slides_has_a_report(browser: Any, tmp_path: Path) -> None:
    browser.open(write_report(tmp_path).as_uri())
    assert browser.texts("#count") == ["0 of 0 slides"]
    assert not re.search(r"\b(null|undefined|NaN)\b", browser.texts("body")[0])
