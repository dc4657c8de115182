"""Settings: what a task offers it also uses, checked without torch however the settings are made."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regard.tools.cli import TASKS
from regard.tools.run.help_page import help_page
from regard.tools.settings import EvaluateLvlmSettings, RestoreSettings, SlideSettings
from regard.tools.settings.types import Fraction, check, settings_hints

TOOLS = Path(__file__).parents[2] / "tools"
TASK_SETTINGS = {task.settings.__name__ for tasks in TASKS.values() for task in tasks.values()}
COMMANDS = [(verb, task) for verb, tasks in TASKS.items() for task in tasks]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[Path]:
    """Modules of tools that a module of tools imports, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for found in (base, *(base / alias.name for alias in node.names)):
                if found.with_suffix(".py").is_file() and found.is_relative_to(TOOLS):
                    yield found.with_suffix(".py")


def reachable(path: Path) -> set[Path]:
    found, waiting = {path}, [path]
    while waiting:
        new = {one for one in imported(waiting.pop()) if one.parts[-2] != "settings"} - found
        found |= new
        waiting += new
    return found


def fields_read(path: Path, classes: dict[str, type], held: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Name of a settings class and of a field that a module reads of it; "*" for all fields.

    Counted are `name.field` where the name is annotated as the class, or assigned from or iterated over such a field
    or an attribute that is annotated so; `open_run(settings)` reads `out`, and `asdict(settings.nested)` all fields of
    the nested class.
    """
    for function in ast.walk(parsed(path)):
        if not isinstance(function, ast.FunctionDef | ast.ClassDef):
            continue
        known: dict[str, str] = {}
        for node in ast.walk(function):
            annotation = getattr(node, "annotation", None)
            if annotation is not None:
                name = getattr(node, "arg", None) or getattr(getattr(node, "target", None), "id", None)
                word = ast.unparse(annotation).split(" | ")[0]
                known |= {name: word} if word in classes else {}

        def class_of(node: ast.AST, known: dict[str, str] = known) -> str | None:
            if isinstance(node, ast.Name):
                return known.get(node.id)
            if not isinstance(node, ast.Attribute):
                return None
            if ast.unparse(node) == "self.settings":
                return known.get("settings")
            owner = class_of(node.value)
            return class_in(settings_hints(classes[owner]).get(node.attr), classes) if owner else held.get(node.attr)

        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                targets, values = ([*getattr(part, "elts", [part])] for part in (node.targets[0], node.value))
            elif isinstance(node, ast.For | ast.comprehension):
                targets, values = [node.target], [node.iter]
            else:
                continue
            for target, value in zip(targets, values, strict=False):
                if isinstance(target, ast.Name) and class_of(value):
                    known[target.id] = class_of(value) or ""
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and (owner := class_of(node.value)):
                yield owner, node.attr
            if isinstance(node, ast.Call) and node.args and (owner := class_of(node.args[0])):
                called = ast.unparse(node.func)
                if called == "open_run":
                    yield owner, "out"
                if called in ("asdict", "dataclasses.asdict") and owner not in TASK_SETTINGS:
                    yield owner, "*"  # those of a task are only recorded so


def class_in(hint: Any, classes: dict[str, type]) -> str | None:
    """Name of the settings class that an annotation is, or has as an item or member."""
    parts = (hint, *getattr(hint, "__args__", ()))
    return next((name for name, cls in classes.items() for part in parts if part is cls), None)


def attributes_held(paths: set[Path], classes: dict[str, type]) -> dict[str, str]:
    """Attribute -> settings class, as the classes of some modules annotate their attributes."""
    return {
        node.target.id: ast.unparse(node.annotation)
        for path in paths
        for owner in ast.walk(parsed(path))
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if ast.unparse(node.annotation) in classes
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    share: Fraction = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner


def nested(settings: type) -> Iterator[type]:
    yield settings
    for hint in settings_hints(settings).values():
        for part in (hint, *getattr(hint, "__args__", ())):
            if dataclasses.is_dataclass(part):
                yield from nested(part)  # type: ignore[arg-type]


@pytest.mark.parametrize(("verb", "task"), COMMANDS)
def test_a_task_reads_every_setting_that_it_offers(verb: str, task: str) -> None:
    settings, module = TASKS[verb][task]
    classes = {cls.__name__: cls for one in nested(settings) for cls in one.__mro__ if dataclasses.is_dataclass(cls)}
    path = TOOLS.joinpath(*module.split(".")).with_suffix(".py")
    paths = reachable(path)
    held = attributes_held(paths, classes)
    read = {pair for own in paths for pair in fields_read(own, classes, held)}
    ignored = [
        f"{cls.__name__}.{name}"
        for cls in nested(settings)
        for name in settings_hints(cls)
        if not any({(owner.__name__, name), (owner.__name__, "*")} & read for owner in cls.__mro__)
    ]
    assert not ignored


@pytest.mark.parametrize("task", ["ask", "slide", "restore"])
def test_the_help_page_fits_a_screen(task: str) -> None:
    assert help_page(f"regard {task}", TASKS[task][""].settings).count("\n") <= 60


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (EvaluateLvlmSettings, {"scenes": 1}, "--scenes is 1; give 2 or more"),
        (EvaluateLvlmSettings, {"shard": "0/2"}, "--shard is '0/2'"),
        (SlideSettings, {"overlap": 1.0}, "--overlap is 1.0; give 0 to below 1"),
        (SlideSettings, {"stages": "gird"}, "did you mean 'grid'"),
        (SlideSettings, {"engine": "ray", "workers": 2}, "omit --workers"),
        (RestoreSettings, {"paths": [".", "out"], "memory": "0"}, "--memory is '0'"),
        (RestoreSettings, {"paths": [".", "out"], "tile": 0}, "--tile is 0; give 1 or more"),
    ],
)
def test_settings_made_in_python_are_checked_too(settings: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**values)


def test_a_nested_setting_is_named_with_its_key() -> None:
    values = SimpleNamespace(**vars(Outer(inner=Inner())) | {"inner": SimpleNamespace(share=2.0)})
    with pytest.raises(ValueError, match=r"--inner\.share is 2\.0; give 0 to 1"):
        check(Outer, values)
