"""Our blocks and networks give the numbers that the authors' own code gave.

`--golden DIR` runs the same checks on DIR/<area>/*.safetensors, or on DIR itself where it is one area. What
to do with an area's files is in checks_<area>.py: CHECKS, the last words of a reference -> a function of the
case that gives its outputs by name; and TOLERANCES, where an area has its own. Golden scores (*.json) are the matter
of test_scores.py; a folder may hold either or both.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from case import Case, compare, cut, read_case
from scores import score_files
from torch import Tensor

HERE = Path(__file__).parent


def golden_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*/*.safetensors"))


def find_check(area: str, reference: str) -> Callable[[Case], dict[str, Tensor]]:
    if not (HERE / f"checks_{area}.py").is_file():
        known = ", ".join(sorted(path.stem.removeprefix("checks_") for path in HERE.glob("checks_*.py")))
        pytest.fail(f"no checks for the area {area!r}; known: {known}")
    checks = importlib.import_module(f"checks_{area}").CHECKS
    fitting = [words for words in checks if f" {reference}".endswith((f" {words}", f"/{words}"))]
    if not fitting:
        pytest.fail(f"no check in {area} for the reference {reference!r}; known: {', '.join(checks)}")
    return checks[max(fitting, key=len)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_file" in metafunc.fixturenames:
        folder = Path(metafunc.config.getoption("--golden") or HERE).resolve()
        files = golden_files(folder) or ([] if score_files(folder) else [folder])
        names = [f"{path.parent.name}/{path.stem}" for path in files]
        metafunc.parametrize("golden_file", files, ids=names)


@pytest.mark.parametrize("training_path", [False, True], ids=["inference", "gradients"])
def test_numbers_are_those_of_the_authors(golden_file: Path, training_path: bool) -> None:
    if golden_file.suffix != ".safetensors":
        pytest.fail(f"no golden files in {golden_file}, nor in the folders in it")
    case = read_case(golden_file)
    area = golden_file.parent.name
    check = find_check(area, case.reference)
    tolerances = getattr(importlib.import_module(f"checks_{area}"), "TOLERANCES", None)
    with torch.set_grad_enabled(training_path):
        compare(check(case), case, tolerances)


def test_a_reference_without_a_check_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="no check in van for the reference"):
        find_check("van", "repository@0 models/van.py Unheard")


def test_an_area_without_checks_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="no checks for the area 'unheard'"):
        find_check("unheard", "repository@0 models/van.py LKA")


@pytest.mark.parametrize(
    ("description", "shape"),
    [
        ("[:, :8, :2, ::2] of the output of block1", (2, 8, 2, 3)),
        ("y[:, 1:-1, 0]", (2, 7, 6)),
        ("[..., -1]", (2, 9, 5)),
    ],
)
def test_cuts_are_read(description: str, shape: tuple[int, ...]) -> None:
    assert cut(torch.zeros(2, 9, 5, 6), description).shape == shape


def test_a_cut_is_not_run_as_code() -> None:
    with pytest.raises(ValueError, match="cannot read"):
        cut(torch.zeros(2), "[print(1)]")
