"""Every command and every example of every page runs, sized down."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from doc_folder import fill
from doc_pages import PAGES, ROOT, Step, commands, steps
from jobs import run
from slide_drill import write_models

from regard.tools.cli import TASKS, find_task
from regard.tools.run.option_parser import settings_parser

#: What makes a command small enough for a test.
SMALL = {
    "train classifier": "--epochs 1 --limit_batches 1 --optimizer.warmup_epochs 0 --images.workers 0",
    "train mil": "--epochs 1 --optimizer.warmup_epochs 0 --resamples 20 --workers 0 --seeds [0]",
    "train restorer": "--data images --epochs 1 --crops 16 --patch_px 8 --precision 32-true --accelerator cpu "
    "--optimizer.warmup_epochs 0 --backbone.options.dim 8 --backbone.options.depths [1] --backbone.options.num_heads 2 "
    "--backbone.options.window_size 8",
    "train lvlm-demo": "--steps_scale 0.01 --eval_scenes 2 --workers 1",
    "evaluate lvlm": "--resamples 20 --costs 1 --attention_samples 1 --max_new_tokens 3 --scenes 2",
    "evaluate restorer": "--data images",
    "ask": "--max_new_tokens 3",
    "restore": "--memory 64GB",  # this process has run the rest of the suite
    "slide": "--pages false",
    "demo classifier": "--epochs 4",
    "demo mil": "--epochs 1",
    "benchmark blocks": "--sides [7] --batch 1 --repeats 1 --passes [forward]",
    "benchmark hosts": "--image_size 56 --batch 1 --repeats 1 --passes [forward]",
    "benchmark heads": "--heads [abmil] --instances [50] --features 8 --repeats 1",
    "benchmark lvlm": "--lvlms [embedded] --batch 1 --repeats 1 --new_tokens 3",
    "benchmark slides": "--slides [4352] --repeats 1",
    "benchmark restorers": "--restorers [hat_photo_x2] --sides [24] --repeats 1",
}


def _has(page: str, kind: str) -> bool:
    return any(step.kind == kind for step in steps(page))


def _is_slow(step: Step) -> bool:
    return "torch.onnx.export" in step.text


def _elsewhere() -> set[Step]:
    return {step for page in PAGES if page != "README.md" for step in steps(page)}


EXTENDING = [page for page in PAGES if page.startswith("docs/extend/")]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    fill(folder)
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a reader, who has the data that the pages name."""
    for path in filled.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda server: None)
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_is_understood(page: str) -> None:
    for step in commands(page):
        verb, task, words = find_task(step.words)
        if task is not None and not any(word.endswith(".yaml") or word == "--print_config" for word in words):
            settings_parser(f"regard {verb} {task}", TASKS[verb][task].settings).parse_args(words)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in EXTENDING and _has(page, "python")])
def test_the_examples_of_a_page_run(page: str, folder: Path) -> None:
    for step in steps(page):
        if step.kind == "python" and not (page == "README.md" and step in _elsewhere()) and not _is_slow(step):
            do(step, folder)


@pytest.mark.parametrize("page", EXTENDING)
def test_a_package_of_ones_own_works_as_its_page_shows(page: str, folder: Path) -> None:
    for step in steps(page):
        do(step, folder)


@pytest.mark.full
@pytest.mark.parametrize("page", [page for page in PAGES if page not in EXTENDING and commands(page)])
def test_the_commands_of_a_page_run(page: str, folder: Path) -> None:
    for step in steps(page):
        if (step.kind == "command" or _is_slow(step)) and not (page == "README.md" and step in _elsewhere()):
            do(step, folder)


def test_the_make_targets_of_the_pages_exist() -> None:
    wanted = {step.text.split()[1] for page in PAGES for step in steps(page) if step.text.startswith("make ")}
    assert wanted
    assert wanted <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def do(step: Step, folder: Path) -> None:
    """Write the file, run the example or the command, sized down."""
    if step.kind == "file":
        (folder / step.name).write_text(step.text)
    elif step.kind == "python":
        exec(compile(step.text, "example", "exec"), {"__name__": "example"})
    elif step.text.startswith("regard "):
        words, allowed = sized_down(step, folder)
        assert run(*words) in allowed, f"{step.text}\nran as regard {' '.join(words)}"


def sized_down(step: Step, folder: Path) -> tuple[list[str], set[int]]:
    """The words of a command with tiny models and data, and the exit codes that it may have."""
    words = ["embedded" if "/llava-" in word else word for word in step.words]
    verb, task, _ = find_task(words)
    name = f"{verb} {task or ''}".strip()
    small, allowed = SMALL.get(name, "").split(), {0}
    if "--print_config" in words:
        return words, {0}
    if name == "train mil" and "splits" not in words:
        small += ["--folds", "2"]
    if name == "view":
        small = ["--port", "0"]
    if verb == "convert":  # no network
        words = [word.rpartition("/")[2] for word in words]
    if name == "slide" and "slides" in words:
        given = write_models(folder)
        tiny = dict(zip(given[::2], given[1::2], strict=True))
        words = [tiny.get(before, word) for before, word in pairwise(["", *words])]
        small += [] if "--patch" in words else ["--patch", "32"]
    if name == "benchmark restorers" and "--tile" in words:
        small += ["--tile", "16", "--overlaps", "[1]"]
    if name == "benchmark heads" and find_spec("torchmil") is None:  # a dependency of this command only
        allowed = {0, 2}
    if name == "benchmark slides" and find_spec("tiffslide") is None:  # likewise
        allowed = {2}
    if any("chair" in word for word in words):
        allowed = {1}  # of 500 images 3 are there
    return [*words, *small], allowed
