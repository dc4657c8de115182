"""Recipes: the YAML files that ship in configs/, found by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ...class_names import nearest

__all__ = ["read_recipe", "recipe_file", "recipes"]

Settings = TypeVar("Settings")


def recipes() -> dict[str, Path]:
    """Every recipe that ships, by name such as `vision/digits_vit_van`."""
    root = Path(str(files("regard.configs")))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def recipe_file(name: str) -> Path:
    """The file that `--config` means.

    Args:
        name: a path, or the name of a recipe, with or without its folder and `.yaml`.

    Raises:
        ValueError: neither a file nor a recipe; the nearest names are suggested.

    Example:
        >>> recipe_file("digits_vit_van").name
        'digits_vit_van.yaml'
    """
    if Path(name).is_file():
        return Path(name)
    known = recipes()
    wanted = name.removesuffix(".yaml").removeprefix("configs/")
    found = [path for key, path in known.items() if wanted in (key, key.rpartition("/")[2])]
    if len(found) == 1:
        return found[0]
    near = nearest(wanted, [*known, *(key.rpartition("/")[2] for key in known)])
    raise ValueError(f"--config {name!r} is neither a file nor a recipe; {near}See 'regard list --kind recipes'")


def read_recipe(name: str, settings: type[Settings], changes: Mapping[str, Any] | None = None) -> Settings:
    """A recipe as the settings of its job.

    Args:
        name: as in `recipe_file`.
        settings: the job's settings class.
        changes: dotted key -> value that differs from the recipe.

    Raises:
        ValueError: no such recipe, or it does not fit the settings.

    Example:
        >>> from regard.tools.settings import TrainClassifierSettings
        >>> read_recipe("digits_vit_van", TrainClassifierSettings, {"backbone.attention": "ela"}).backbone.attention
        'ela'
    """
    from jsonargparse import ArgumentParser  # half of the time that a help page would take

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(settings)
    parsed = parser.parse_path(recipe_file(name))
    for key, value in (changes or {}).items():
        parsed[key] = value
    parser.validate(parsed)
    return settings(**vars(parser.instantiate(parsed)))
