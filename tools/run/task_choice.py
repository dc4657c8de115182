"""The task of a command that has the verb alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .recipes import recipe_file

__all__ = ["choose_task"]


def choose_task(verb: str, tasks: Mapping[str, type], words: Sequence[str]) -> tuple[str, str]:
    """Find the task that options, recipe or model are of.

    Args:
        verb: such as "train".
        tasks: name -> settings class.
        words: what follows the verb.

    Returns:
        The task, and why it was chosen.

    Raises:
        ValueError: several tasks or none would take the options.
    """
    config, model = _value(words, "config"), _value(words, "model")
    keys = {word[2:].partition("=")[0].partition(".")[0].rstrip("+") for word in words if word.startswith("--")}
    if config is not None:
        text = recipe_file(config).read_text(encoding="utf-8")
        named = re.match(rf"# regard {verb} ([\w-]+) ", text)
        if named and named[1] in tasks:
            return named[1], f"from the first line of {config}"
        import yaml

        read = yaml.safe_load(text)
        keys |= {*read} if isinstance(read, dict) else set()
    keys -= {"config", "print_config"}
    fitting = [
        name for name, settings in tasks.items() if keys <= {field.name for field in dataclasses.fields(settings)}
    ]
    if len(fitting) == 1:
        return fitting[0], f"only this task has all of {', '.join(sorted(keys))}"
    kind = None if model is None else _kind_of_model(model)
    if kind in fitting:
        return kind, f"{model} is the model of such a task"
    listed = " or ".join(fitting or tasks)
    raise ValueError(f"which task? Give it after the verb, 'regard {verb} TASK ...': {listed}")


def _value(words: Sequence[str], option: str) -> str | None:
    """The value of `--option value` or `--option=value`."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == f"--{option}":
            return value if equals else next(iter(words[index + 1 :]), None)
    return None


def _kind_of_model(name: str) -> str | None:
    """The task of an exported folder, a model of transformers, or an embedded one; None if it is not known."""
    embedded = Path(str(files("regard"))) / "vision" / "backbones" / "embedded" / name
    folders = (Path(name), Path(name, "model"), embedded)
    found = next((folder for folder in folders if (folder / "config.json").is_file()), None)
    if found is None:
        return "lvlm" if name == "embedded" else None
    try:
        config: Any = json.loads((found / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if "text_config" in config:
        return "lvlm"
    if "label_names" in config:
        return "classifier"
    return "restorer" if str(config.get("architecture", "")).startswith("hat_") else None
