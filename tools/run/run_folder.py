"""The output folder of a job: whose it is, what made it, whether it is finished; one contract for every job."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ...file_lock import ProcessLock
from ...whole_files import PARTIAL, remove_leftovers, write_atomically

__all__ = ["RunFolder", "check_run_folder", "has_run_folder", "is_first_process", "open_run", "plain_settings"]

#: Files of the contract itself; a folder with no others holds nothing that could be lost.
_OWN = ("settings.yaml", "run.json", ".run.lock")

#: Packages whose versions are noted, of those that are installed.
_PACKAGES = (
    *("regard", "torch", "torchvision", "timm", "lightning", "transformers", "numpy", "pillow", "scikit-learn"),
    *("openslide-python", "tifffile", "ray"),
)


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a job that has been opened.

    Attributes:
        path: the folder.
        first: whether this process writes what all processes of a run share.
    """

    path: Path
    first: bool = True

    @property
    def summary(self) -> dict[str, Any] | None:
        """The contents of summary.json, which marks the run as finished, or None."""
        file = self.path / "summary.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, as the last of all files."""
        if self.first:
            write_atomically(self.path / "summary.json", json.dumps(summary, indent=1))


@contextmanager
def open_run(
    settings: Any, *, folder: str | Path | None = None, shared: bool = False, overwrite: bool = False
) -> Iterator[RunFolder]:
    """Open the output folder of a job, and keep it from others until the block ends.

    The folder is made, or a stopped run in it is taken up: settings.yaml and run.json (task, versions, command, seeds)
    are written, and what killed processes left half-written is removed. It is refused if it holds a run of another task
    or with other settings, or if another process is active in it. The further processes of one run, as torchrun, SLURM
    or Lightning start them, open it together with the first.

    Two settings of a run and of its continuation may differ where the field of the settings class allows it, in its
    metadata: `{"resume": "free"}` for where and on what the job runs (the folder itself, devices, workers), and
    `{"resume": "extend"}` for what only adds to a finished run (further heads or seeds), whose summary is then removed.

    Args:
        settings: dataclass of the job.
        folder: the output folder; None is `settings.out`.
        shared: several jobs with the same settings may be active in the folder, such as the shards of one; then nothing
            half-written is removed.
        overwrite: accept other settings than those of the run in the folder.

    Raises:
        ValueError: it is a file, or is refused; the message gives the reason and what to do.
        OSError: it cannot be written.

    Example:
        >>> from dataclasses import dataclass, field
        >>> @dataclass(frozen=True)
        ... class CountSettings:
        ...     upto: int = 3
        ...     out: str = field(default="counted", metadata={"resume": "free"})
        >>> with open_run(CountSettings()) as run:
        ...     if run.summary is None:
        ...         run.finish({"counted": 3})
        >>> try:
        ...     with open_run(CountSettings(upto=4)): ...
        ... except ValueError as error:
        ...     print(error)
        counted holds a run with other settings (upto: 3 there, 4 here); give another --out
    """
    path = Path(settings.out if folder is None else folder)
    first = shared or is_first_process()
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file; give a folder")
    lock = ProcessLock(path / ".run.lock")
    alone = first and not shared
    if alone and not lock.acquire():
        raise ValueError(f"another process is active in {path}; wait until it ends, or give {_elsewhere(settings)}")
    try:
        extended = check_run_folder(settings, folder=path, overwrite=overwrite)
        path.mkdir(parents=True, exist_ok=True)
        if alone:
            for holding in {left.parent for left in path.rglob(f".*{PARTIAL}*")}:
                remove_leftovers(holding / "*", older_than_s=0.0)
        if first and extended:
            (path / "summary.json").unlink(missing_ok=True)
        if first:
            write_atomically(path / "settings.yaml", yaml.safe_dump(plain_settings(settings), sort_keys=False))
            write_atomically(path / "run.json", json.dumps(_record(settings), indent=1))
        try:
            yield RunFolder(path, first)
        except BaseException:
            if first and not _has_results(path):  # nothing is kept of a run that was refused
                for name in _OWN[:2]:
                    (path / name).unlink(missing_ok=True)
            raise
    finally:
        lock.release()


def check_run_folder(settings: Any, *, folder: str | Path | None = None, overwrite: bool = False) -> bool:
    """See whether a job may use its output folder, without touching it.

    Args:
        settings: dataclass of the job.
        folder: the output folder; None is `settings.out`.
        overwrite: accept other settings than those of the run in the folder.

    Returns:
        Whether the settings extend those of the run in the folder.

    Raises:
        ValueError: it is a file, or holds a run of another task or with other settings.
    """
    path = Path(settings.out if folder is None else folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file; give a folder")
    file = path / "settings.yaml"
    if overwrite or not file.is_file() or not _has_results(path):
        return False
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        record = path / "run.json"
        task = json.loads(record.read_text(encoding="utf-8")).get("task") if record.is_file() else None
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        message = f"{path} holds a run whose settings cannot be read ({reason:.80}); give {_elsewhere(settings)}"
        raise ValueError(message) from error
    if task not in (None, _task(settings)) or not isinstance(before, dict):
        raise ValueError(f"{path} holds a run of 'regard {task}'; give {_elsewhere(settings)}")
    rules = dict(_rules(settings))
    there, here = _flat(before), _flat(plain_settings(settings))
    differing = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    refused = [key for key in differing if _rule(key, rules) is None]
    if refused:
        named = "; ".join(f"{key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in refused)
        raise ValueError(f"{path} holds a run with other settings ({named}); give {_elsewhere(settings)}")
    return any(_rule(key, rules) == "extend" for key in differing)


def has_run_folder(settings: Any) -> bool:
    """Whether a task keeps its results in a run folder `out`, by the rule of that field."""
    return any(field.name == "out" and "resume" in field.metadata for field in fields(settings))


def is_first_process() -> bool:
    """Whether this is the only or the first process of a run; the further ones have a rank in their environment."""
    for name in ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        if name in os.environ:
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name, 0)) == 0 for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings as nested dictionaries of plain values, as settings.yaml holds them."""
    return json.loads(json.dumps(asdict(settings)))


def _task(settings: Any) -> str:
    """Words of the command, e.g. "train mil" of TrainMilSettings."""
    words = re.findall(r"[A-Z][a-z0-9]*", type(settings).__name__.removesuffix("Settings"))
    return " ".join([words[0], "-".join(words[1:])]).strip().lower()


def _elsewhere(settings: Any) -> str:
    """What to give instead of a folder that is refused."""
    return "another --out" if hasattr(settings, "out") else "another folder, or --overwrite true"


def _has_results(path: Path) -> bool:
    return any(file.name not in _OWN and PARTIAL not in file.name for file in path.iterdir())


def _record(settings: Any) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    values = _flat(plain_settings(settings))
    seeds = {key: value for key, value in values.items() if key.rpartition(".")[2] in ("seed", "seeds")}
    return {"task": _task(settings), "command": sys.argv[1:], "seeds": seeds, "versions": versions}


def _rules(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key -> how it may differ, of the fields that may."""
    for field in fields(settings):
        if "resume" in field.metadata:
            yield f"{prefix}{field.name}", field.metadata["resume"]
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _rules(value, f"{prefix}{field.name}.")


def _rule(key: str, rules: Mapping[str, str]) -> str | None:
    """How a setting may differ: "free", "extend" or not at all; a nested one as the one that it is part of."""
    parts = key.split(".")
    return next((rules[own] for end in range(len(parts), 0, -1) if (own := ".".join(parts[:end])) in rules), None)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
