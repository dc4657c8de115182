"""The report of an evaluation: what is in the file, and what the page does in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_data import ARMS, HOSTILE, example

from regard.tools.evaluate.report.build import build_report, data_uri

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


def held_data(page: str) -> dict[str, Any]:
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_page_holds_the_data_and_no_letter_of_markup_from_it() -> None:
    data = example(questions=4, captions=2)
    page = build_report(data)
    assert held_data(page) == data
    assert HOSTILE not in page
    assert page.count("</script>") == 2  # the data and the script
    assert "onerror" not in page.replace("\\u003cimg src=x onerror", "")


def test_the_page_names_no_other_address() -> None:
    page = build_report({**example(questions=4, captions=2), "images": {}})  # base64 may hold anything
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(|srcset|<link|<iframe|<object|<embed|<base|fetch\(|XMLHttp", page
    )
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["#"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_script_makes_elements_and_text_only() -> None:
    page = build_report(example(questions=4, captions=2))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|DOMParser", page)


def test_numbers_that_are_not_finite_never_get_in() -> None:
    data = example(questions=4, captions=2)
    data["settings"] |= {"a": float("nan"), "b": [1.5, float("-inf")]}
    settings = held_data(build_report(data))["settings"]
    assert (settings["a"], settings["b"]) == (None, [1.5, None])


def test_a_lone_half_of_a_letter_can_be_written(tmp_path: Path) -> None:
    data = example(questions=4, captions=2)
    data["benchmarks"][0]["samples"][0]["answers"]["none"]["text"] = "cut \ud83d"
    (tmp_path / "report.html").write_text(build_report(data), encoding="utf-8")


def test_what_cannot_be_a_report_is_refused() -> None:
    data = example(questions=4, captions=2)
    with pytest.raises(ValueError, match="no benchmark"):
        build_report({**data, "benchmarks": []})
    with pytest.raises(ValueError, match="two benchmarks of the report have one name: pope, pope"):
        build_report({**data, "benchmarks": data["benchmarks"][:1] * 2})
    with pytest.raises(ValueError, match=r"the image 'a' is 'photo.jpg'; make a data URI"):
        build_report({**data, "images": {"a": "photo.jpg"}})


def test_a_photograph_becomes_a_jpeg_and_a_drawing_a_png() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    photo, drawing = data_uri(Image.fromarray(noise), 60), data_uri(Image.new("L", (40, 90), 7), 60)
    assert photo.startswith("data:image/jpeg;base64,")
    assert drawing.startswith("data:image/png;base64,")
    assert decoded(photo).size == (60, 40)
    assert decoded(drawing).size == (27, 60)


def test_small_images_stay_as_they_are_and_glass_stays_clear() -> None:
    image = Image.new("RGBA", (9, 5), (200, 10, 10, 100))
    found = decoded(data_uri(image, 60))
    assert found.size == (9, 5)
    assert found.getpixel((4, 2)) == (200, 10, 10, 100)


def test_images_stand_upright_and_tell_nothing_of_the_camera() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera of somebody"
    held = io.BytesIO()
    image.save(held, "JPEG", exif=exif)
    found = decoded(data_uri(Image.open(held), 100))
    assert found.size == (20, 40)
    assert not found.getexif()


def test_a_image_of_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pixels; give 1 at least"):
        data_uri(Image.new("L", (4, 4)), 0)


class Page:
    """The example in a browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, fragment: str = "", width: int = 1280) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector)

    def select(self, label: str, text: str, within: str = "main") -> None:
        """Choose the first option that begins with a text."""
        script = """
            const [label, text, within] = arguments;
            const labels = [...document.querySelectorAll(within + " label")];
            const select = labels.find(e => e.firstChild.textContent === label).querySelector("select");
            select.value = [...select.options].find(e => e.text.startsWith(text)).value;
            select.dispatchEvent(new Event("change"));
        """
        self.run(script, label, text, within)

    def filter(self, label: str, text: str) -> None:
        self.select(label, text, ".filters")

    def count(self) -> int:
        words = re.search(r"of (\d+) samples? that", self.texts(".count")[0])
        return int(words[1]) if words else 0

    def settle(self) -> None:
        """Wait until what was typed is heard."""
        self.driver.execute_async_script("setTimeout(arguments[0], 250)")

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    selenium = pytest.importorskip("selenium.webdriver", reason="the browser is led by selenium: regard[test]")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("the page is looked at with chromium and chromedriver, and one of them is not installed")
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.html").write_text(build_report(example()))
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(CHROMEDRIVER))
    yield Page(driver, (folder / "report.html").as_uri())
    driver.quit()


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    browser.open()
    yield browser
    assert browser.complaints() == []


def test_the_page_tells_what_was_run_and_warns_first(page: Page) -> None:
    assert page.driver.title.startswith("Do VDD and rebalancing")
    head = page.texts("#head")[0]
    assert head.index("Read these first: 3 warnings") < head.index("Summary") < head.index("Settings of the run")
    assert "2 images skipped, with 12 samples" in head
    assert "COCO_val2014_000000016631.jpg: cannot be read: it is empty (6 samples)" in head
    assert "llava-hf/llava-1.5-7b-hf" in head
    assert "regard 0.1.0, torch 2.14.0" in head
    page.run("[...document.querySelectorAll('#head details')].at(-1).open = true")
    assert '{"max_new_tokens":512,"temperature":0,"beams":1}' in page.texts("#head")[0]


def test_the_table_shows_value_interval_difference_and_p(page: Page) -> None:
    cell = held_data(build_report(example()))["benchmarks"][0]["scores"]["parts"][2]["parsers"]["official"]["metrics"]
    one = cell["accuracy"][ARMS[1]]
    change = one["difference"]
    shown = page.texts(".scores tbody tr:nth-child(2) td:nth-child(2)")[0].replace("\u2212", "-").split("\n")
    assert shown[0] == f"{one['value']:.3f} {one['low']:.3f} to {one['high']:.3f}"
    assert shown[1] == f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}] **"
    assert shown[2] == f"p {change['p']:.3f}, Holm {change['holm']:.3f}"


def test_the_shares_of_yes_and_no_are_shown_for_every_arm(page: Page) -> None:
    [shares] = page.texts("[aria-label='Shares of yes and no']")
    assert all(value in shares for value in ("58.1", "50.2", "56.4", "49.6"))  # percent of the answers


def test_selects_change_the_table_and_the_plot(page: Page) -> None:
    before = page.texts(".scores")[0]
    page.select("Part", "adversarial")
    part = page.texts(".scores")[0]
    page.select("Parser or mode", "words")
    assert len({before, part, page.texts(".scores")[0]}) == 3
    page.select("Metric of the plot", "recall")
    assert "Difference in recall" in page.texts("h3")
    assert page.run("return document.querySelectorAll('.forest .interval-figure').length") == len(ARMS) - 1
    page.select("Part", "mean of the parts")
    assert "Right and wrong in pairs" not in page.texts("h3")


def test_filters_change_which_samples_are_shown(page: Page) -> None:
    data = example()["benchmarks"][0]["samples"]
    assert page.count() == len(data)
    assert len(page.texts(".card")) == 20
    page.filter("Part", "adversarial")
    assert page.count() == len(data) / 2
    page.filter("Part", "all")
    page.filter("Outcome", "correct, baseline wrong (gained)")
    page.filter("Arm", ARMS[1])
    gained = [one for one in data if one["answers"][ARMS[1]]["correct"] and not one["answers"]["none"]["correct"]]
    assert page.count() == len(gained) == len(page.texts(".card"))
    assert {"right", "wrong"} == set(page.texts(".card .badge"))
    page.filter("Outcome", "all arms wrong")
    assert page.count() == sum(not any(own["correct"] for own in one["answers"].values()) for one in data)


def test_text_is_searched_in_questions_and_answers(page: Page) -> None:
    page.run(
        "const i = document.querySelector('.filters input'); i.value = 'UMBRELLA'; i.dispatchEvent(new Event('input'))"
    )
    page.settle()
    assert 0 < page.count() < 48
    assert all("umbrella" in text for text in page.texts(".card"))
    page.run("document.querySelector('.clear').click()")
    assert page.count() == 48
    assert page.run("return document.querySelector('.filters input').value") == ""


def test_a_link_with_the_choice_in_it_shows_the_same(page: Page) -> None:
    page.run("[...document.querySelectorAll('.tab')].find(e => e.innerText === 'chair').click()")
    page.filter("Outcome", "invents fewer objects than the baseline")
    page.filter("Arm", ARMS[2])
    page.select("Metric of the plot", "recall")
    cards, fragment = page.texts(".card"), page.run("return location.hash")
    page.open(fragment)
    assert page.texts(".card") == cards != []
    assert "Difference in recall" in page.texts("h3")
    page.open("#benchmark=nothing&parser=toString&part=__proto__&page=-3&outcome=valueOf&object=%3Cimg%3E")
    assert page.texts(".benchmark-title") == ["pope"]
    assert page.texts(".card") == []  # no answer invents <img>


def test_names_of_invented_objects_lead_to_their_samples(page: Page) -> None:
    page.open("#benchmark=chair")
    name = page.texts(".objects th[scope=rowgroup] a")[0]
    page.run("document.querySelector('.objects th[scope=rowgroup] a').click()")
    samples = example()["benchmarks"][1]["samples"]
    assert page.count() == sum(any(name in own["invented"] for own in one["answers"].values()) for one in samples)
    assert name in page.texts(".card mark")
    assert page.driver.switch_to.active_element.get_attribute("id") == "samples"


def test_words_that_differ_from_the_baseline_are_marked(page: Page) -> None:
    page.open("#benchmark=chair&text=might")
    marked = page.texts(".card .differs")
    assert any("might be" in words for words in marked)
    assert not any("The image shows" in words for words in marked)


def test_text_of_strangers_stays_text(page: Page) -> None:
    assert HOSTILE in page.texts(".answer-text")
    assert "<img src=x onerror=alert(1)>.jpg: no such file (6 samples)" in page.texts(".left-out li")
    sources = page.run("return [...document.querySelectorAll('[src]')].map(e => e.getAttribute('src').slice(0, 11))")
    assert set(sources) == {"data:image/"}
    assert page.run("return document.querySelectorAll('script').length") == 2


def test_a_image_opens_at_a_click_and_closes_with_escape(page: Page) -> None:
    page.run("document.querySelector('.image').click()")
    assert page.texts("#viewer-caption") == ["image of random-0 (1 of 4)"]
    press = page.driver.switch_to.active_element.send_keys
    press("\ue014")  # arrow to the right
    assert page.texts("#viewer-caption")[0].startswith("none: attention")
    press("\ue00c")  # escape
    assert not page.run("return document.querySelector('dialog').open")


def test_what_is_not_there_leaves_no_trace(page: Page, tmp_path: Path) -> None:
    data = example(questions=4, captions=2)
    data |= {"settings": {}, "versions": {}, "images": {}}
    for benchmark in data["benchmarks"]:
        scores = benchmark["scores"]
        scores |= {"skipped_images": [], "warnings": [], "activity": {}, "objects": {}}
        for part in scores["parts"]:
            part["text"] = None
            for parser in part["parsers"].values():
                row = next(iter(parser["metrics"].values()))
                row[ARMS[1]] |= {"value": None, "low": None, "high": None, "difference": None}
                parser |= {"metrics": {"odd": row}, "mcnemar": None, "parsed": None}
        benchmark |= {"costs": None, "samples": []}
    (tmp_path / "report.html").write_text(build_report(data))
    for name in ("pope", "chair"):
        page.driver.get((tmp_path / "report.html").as_uri() + f"#benchmark={name}")
        shown = page.texts("body")[0]
        assert not re.search(r"\b(null|undefined|NaN|Infinity)\b", shown)
        assert "No warnings." in shown
        assert page.texts(".scores tbody tr:nth-child(2) td")[0] == "-"


def test_every_control_has_a_name(page: Page) -> None:
    script = """
        const named = e => e.getAttribute("aria-label") || e.closest("label")?.innerText.trim() || e.innerText.trim();
        return [...document.querySelectorAll("select, input, button, a, [role=region]")]
            .filter(e => !named(e)).map(e => e.outerHTML)
    """
    assert page.run(script) == []
    assert page.run("return [...document.images].every(e => e.alt)")


@pytest.mark.parametrize("name", ["pope", "chair"])
def test_a_narrow_window_scrolls_tables_and_not_the_page(page: Page, name: str) -> None:
    page.open(f"#benchmark={name}", width=400)
    assert page.run("const e = document.documentElement; return e.scrollWidth - e.clientWidth") == 0
    assert page.run("return [...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)")


def test_on_paper_everything_is_open(page: Page) -> None:
    page.driver.execute_cdp_cmd("Page.printToPDF", {})
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") > 0
