"""The output folder of a training run: whose it is, what made it, and whether it is done."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from ...whole_files import write_atomically
from ..settings import TrainSettings

__all__ = ["finished", "first_process", "open_folder"]

#: Settings that say where and on what a run works, not what comes out; they may change when a run goes on.
_PLACE = (
    *("out", "accelerator", "devices", "nodes", "strategy", "loggers"),
    *("images.workers", "images.root", "bags.workers"),
)

#: What shows that training has begun.
_BEGUN = ("last.ckpt", "summary.json", "runs")


def finished(settings: TrainSettings) -> dict[str, Any] | None:
    """The summary of a run that is done with the same settings, or None."""
    summary = Path(settings.out, "summary.json")
    if not summary.is_file() or _differences(settings):
        return None
    return json.loads(summary.read_text(encoding="utf-8"))


def open_folder(settings: TrainSettings, *, growing: Collection[str] = ()) -> None:
    """Make the output folder, or take up the one of a stopped run.

    Args:
        settings: of the run.
        growing: settings that may change, because they only add to what is there.

    Raises:
        ValueError: it holds a run with other settings; they are named.
    """
    out = Path(settings.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    different = _differences(settings, growing)
    if different:
        raise ValueError(f"{out} holds a run with other settings ({'; '.join(different)}); give another --out")
    out.mkdir(parents=True, exist_ok=True)
    if first_process():
        names = ("regard", "torch", "torchvision", "timm", "lightning", "numpy")
        versions = {"python": platform.python_version()} | {name: version(name) for name in names}
        write_atomically(out / "settings.yaml", yaml.safe_dump(asdict(settings), sort_keys=False))
        write_atomically(out / "run.json", json.dumps({"versions": versions, "command": sys.argv[1:]}, indent=1))


def first_process() -> bool:
    """Whether this process writes; several devices each have one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _differences(settings: TrainSettings, growing: Collection[str] = ()) -> list[str]:
    path = Path(settings.out, "settings.yaml")
    if not path.is_file() or not any(Path(settings.out, name).exists() for name in _BEGUN):
        return []  # nothing is finished that could be lost
    before, now = _flat(yaml.safe_load(path.read_text(encoding="utf-8"))), _flat(asdict(settings))
    return [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} here"
        for key in sorted(before.keys() | now.keys())
        if key not in (*_PLACE, *growing) and before.get(key) != now.get(key)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
