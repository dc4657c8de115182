"""The site builds without warnings, its links lead somewhere, and the files about the project are in order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES, ROOT

FILES = [*PAGES, "CONTRIBUTING.md", "SECURITY.md"]


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as Python-Markdown makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        own = re.search(r"\{ #([\w-]+) \}", heading)
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\{.*?\}", "", heading)).strip().lower()
        found.add(own[1] if own else re.sub(r"[-\s]+", "-", words))
    return found


@pytest.mark.parametrize("file", FILES)
def test_every_link_to_another_page_leads_somewhere(file: str) -> None:
    page = ROOT / file
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if ":" not in path:
            linked = page if not path else (page.parent / path).resolve()
            assert linked.is_file(), f"{file} links to {target}"
            if anchor:
                assert anchor in anchors(linked), f"{file} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
    navigation = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]
    listed = re.findall(r"'([\w/]+\.md)'", str(navigation))
    assert sorted(listed) == sorted(page.removeprefix("docs/") for page in PAGES if page != "README.md")


def test_the_site_asks_no_other_server_for_anything() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in settings
    assert "://" not in settings


@pytest.mark.full
@pytest.mark.skipif(find_spec("mkdocs") is None, reason='the site needs pip install "regard[docs]"')
def test_the_site_builds_without_warnings_and_without_a_network(tmp_path: Path) -> None:
    mkdocs = shutil.which("mkdocs") or str(Path(sys.executable).with_name("mkdocs"))
    command = [mkdocs, "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    scripts = {
        address
        for page in (tmp_path / "site").rglob("*.html")
        for address in re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"?(https?:[^\"\s>]*)", page.read_text())
    }
    assert not scripts


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_citation_has_what_its_format_requires() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= {*citation}
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version is not None
    assert citation["version"] == version[1]


def test_pre_commit_runs_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    ran = [re.sub(r"\.venv/bin/| --force-exclude", "", hook["entry"]) for hook in hooks]
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    checked = [line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in recipe.splitlines()[1:]]
    assert ran == checked
