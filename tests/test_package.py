"""The package as it is installed: what the wheel holds, what an import loads, who imports whom."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import regard

ROOT = Path(__file__).parents[1]
GOLDEN = (".py", ".safetensors", ".json")
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
    kinds, folders = (".py", ".yaml", ".png", ".txt"), ("embedded", "report_page", "page_parts")
    kept = [
        path
        for path in files
        if path.is_file() and (path.suffix in kinds or {*path.relative_to(ROOT).parts} & {*folders})
    ]
    return [*ROOT.glob("*.py"), *kept]


def build(kind: str, source: Path, target: Path) -> Path:
    """A wheel or sdist of a source tree, as pip makes it."""
    script = f"import sys; from setuptools.build_meta import build_{kind}; build_{kind}(sys.argv[1])"
    python("-c", script, str(target), cwd=source)
    return next(target.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "MANIFEST.in", "Makefile", "py.typed"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in sources():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return build("sdist", source, folder)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, so that the sdist holds all that it takes."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(sdist, folder, filter="data")
    return build("wheel", next(path for path in folder.iterdir() if path.is_dir()), folder)


def test_the_sdist_holds_the_tests_and_golden_files(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*") if path.suffix in GOLDEN}
    assert wanted
    assert wanted <= held
    assert "CHANGELOG.md" in held


def test_the_wheel_holds_every_module_and_recipe_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {f"regard/{path.relative_to(ROOT).as_posix()}" for path in sources()} | {"regard/py.typed"}


def test_the_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    check = (
        "import sys; sys.path.insert(0, sys.argv[1]); import regard; from regard.tools.run.recipes import recipes; "
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
    [
        *("import regard", "import regard.datasets", "import regard.mllm", "import regard.mllm.interventions"),
        *(f"regard {words}" for words in ("--help", "train --help", "ask --help")),
    ],
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


@cache
def imported(path: Path) -> frozenset[Path]:
    """Modules and packages of ours that a module imports at run time, wherever in it."""
    return frozenset(found for node in _imports(ast.parse(path.read_text())) for found in _found(path, node))


def _imports(node: ast.AST) -> Iterator[ast.ImportFrom | ast.Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom | ast.Import):
            yield child
        yield from _imports(child)


def _found(path: Path, node: ast.ImportFrom | ast.Import) -> Iterator[Path]:
    if isinstance(node, ast.ImportFrom) and node.level:
        base = path.parents[node.level - 1].joinpath(*filter(None, (node.module or "").split(".")))
        bases = [base / alias.name for alias in node.names] if base.is_dir() else [base]
    else:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        bases = [ROOT.joinpath(*name.split(".")[1:]) for name in names if name.split(".")[0] == "regard"]
    for one in bases:
        options = (one.with_suffix(".py"), one / "__init__.py", one.parent / "__init__.py")
        yield from [option for option in options if option.is_file()][:1]


def product() -> list[Path]:
    return [*ROOT.glob("*.py"), *(path for room in (*ROOMS, "tools") for path in (ROOT / room).rglob("*.py"))]


def test_rooms_do_not_import_each_other_and_nothing_imports_tools() -> None:
    allowed = {"__init__.py": {"vision"}, "__main__.py": {"tools"}}  # of the root files, which no room may need
    wrong = []
    for path in product():
        room = path.relative_to(ROOT).parts[0]
        for other in {found.relative_to(ROOT).parts[0] for found in imported(path)} & {*ROOMS, "tools"}:
            if room not in (other, "tools") and other not in allowed.get(room, set()):
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_no_module_imports_itself_by_way_of_others() -> None:
    left = {path: set(imported(path)) - {path} for path in product()}
    while free := [path for path, needed in left.items() if not needed & left.keys()]:
        left = {path: needed for path, needed in left.items() if path not in free}
    assert not sorted(str(path.relative_to(ROOT)) for path in left)


def test_tools_has_its_modules_in_folders_but_the_command() -> None:
    assert {path.name for path in (ROOT / "tools").glob("*.py")} == {"__init__.py", "cli.py"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
