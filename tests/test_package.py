"""The package as it is installed: what the wheel holds, what an import loads, who imports whom."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import regard

ROOT = Path(__file__).parents[1]
ROOMS = ("vision", "heads", "mllm", "datasets")
PACKAGES = [".", *ROOMS, "configs", "tools"]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(regard.__path__, "regard.") if not module.name.endswith("__main__")
)


def python(*arguments: str, cwd: Path | None = None) -> str:
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def sources() -> list[Path]:
    files = [path for folder in PACKAGES[1:] for path in sorted((ROOT / folder).rglob("*"))]
    return [path for path in [*ROOT.glob("*.py"), *files] if path.suffix in (".py", ".yaml")]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "py.typed"):
        shutil.copy(ROOT / name, source)
    for path in sources():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    python("-c", build, str(folder), cwd=source)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_recipe_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {f"regard/{path.relative_to(ROOT).as_posix()}" for path in sources()} | {"regard/py.typed"}


def test_the_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    check = (
        "import sys; sys.path.insert(0, sys.argv[1]); import regard; from regard.tools.recipes import recipes; "
        "print(regard.__file__, len(recipes()))"
    )
    file, count = python("-c", check, str(tmp_path), cwd=tmp_path).split()
    assert Path(file).parent == tmp_path / "regard"
    assert int(count) == len(list((ROOT / "configs").rglob("*.yaml")))


def test_pyproject_names_every_package() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {path.parent.relative_to(ROOT) for path in sources() if path.name == "__init__.py"}
    assert sorted(named) == sorted(".".join(["regard", *folder.parts]) for folder in found)


@pytest.mark.parametrize(
    "arguments",
    ["import regard", "import regard.datasets", *(f"regard {words}" for words in ("--help", "train --help"))],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(arguments: str) -> None:
    statement = arguments
    if arguments.startswith("regard "):
        words = arguments.split()[1:]
        statement = (
            f"import contextlib\nfrom regard.tools.cli import main\nwith contextlib.suppress(SystemExit): main({words})"
        )
    loaded = python(
        "-c",
        f"{statement}\nimport sys; print([n for n in ('torch', 'timm', 'lightning') if n in sys.modules])",
    )
    assert loaded.splitlines()[-1] == "[]"


def test_rooms_do_not_import_each_other_and_nothing_imports_tools() -> None:
    wrong = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            inside = path.relative_to(ROOT).parts
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    target = [*inside[: len(inside) - node.level], *(node.module or "").split(".")]
                    names = [target[0] or alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module.removeprefix("regard.").split(".")[0]] if "regard" in node.module else []
                elif isinstance(node, ast.Import):
                    names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("regard.")]
                else:
                    continue
                wrong += [f"{path}:{node.lineno}" for name in names if name in {*ROOMS, "tools"} - {room}]
    assert not wrong


def test_a_checkout_does_not_hide_the_library_called_datasets() -> None:
    check = "import regard, importlib.util as u; s = u.find_spec('datasets'); print(s.origin if s else None)"
    assert python("-c", check, cwd=ROOT).strip() != str(ROOT / "datasets" / "__init__.py")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
