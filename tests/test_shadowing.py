"""Python started in a checkout: other modules called datasets, tools or heads win over the folders of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import regard

ROOT = Path(regard.__file__).parent
FOLDERS = ("configs", "datasets", "heads", "mllm", "tools", "vision")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a package `datasets`, and modules with the names of the other folders."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "__init__.py").write_text("from .load import load_dataset\nclass Row: pass\n")
    (folder / "datasets" / "load.py").write_text("def load_dataset(): return 'loaded'\n")
    for name in FOLDERS:
        if name != "datasets":
            (folder / f"{name}.py").write_text("mine = True\n")
    return folder


def python(*arguments: str, path: Path | None = None) -> str:
    """Run Python in the checkout, with a folder on its path."""
    paths = [*([str(path)] if path else []), str(ROOT.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_other_modules_win_whatever_is_imported_first(others: Path) -> None:
    wins = f"""
import importlib, pickle, sys
before = list(sys.path)
import datasets.load, datasets
assert datasets.load_dataset() == datasets.load.load_dataset() == "loaded", datasets
assert type(pickle.loads(pickle.dumps(datasets.Row()))) is datasets.Row
assert all(importlib.import_module(name).mine for name in {FOLDERS} if name != "datasets")
import regard.heads, regard.datasets
assert sys.path == before
print(regard.datasets.__file__, "Bag" in dir(importlib.import_module("regard.datasets.bags")))
"""
    assert python("-c", wins, path=others) == f"{ROOT / 'datasets' / '__init__.py'} True"


def test_programs_run_as_modules_get_the_other_modules_too(others: Path) -> None:
    (others / "program.py").write_text("import regard, tools, datasets; print(tools.mine, datasets.load_dataset())\n")
    assert python("-m", "program", path=others) == "True loaded"
    assert python("-m", "regard", "--version", path=others).endswith(regard.__version__)


def test_without_other_modules_the_folders_are_empty_modules() -> None:
    empty = f"""
import importlib
for name in {[name for name in FOLDERS if name != "datasets"]}:
    module = importlib.import_module(name)
    assert module.__file__ is None and not hasattr(module, "HEADS"), name
"""
    python("-c", empty)
