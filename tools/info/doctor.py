"""`regard doctor`: versions, devices and optional parts."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from ..settings import DoctorSettings

__all__ = ["run"]


def run(settings: DoctorSettings) -> int:
    """Print the tables; the exit code is 1 when a part that Regard cannot do without is missing."""
    console = Console()
    required, optional = _requirements()
    table = Table("part", "version", "needed for", "to install", title="Regard")
    table.add_row("python", platform.python_version(), "everything", "")
    table.add_row("regard", version("regard"), "everything", "")
    missing = 0
    for requirement in required:
        found = _version(requirement.name)
        missing += found is None
        table.add_row(
            requirement.name,
            found or "[red]missing",
            "everything",
            "" if found else f'pip install "{requirement}"',
        )
    for extra, requirement in optional:
        found = _version(requirement.name)
        table.add_row(
            requirement.name,
            found or "[yellow]missing",
            extra,
            "" if found else f'pip install "regard\\[{extra}]"',
        )
    console.print(table)

    devices = Table("device", "name", "memory", title="Devices")
    devices.add_row(
        "cpu", f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads", _memory()
    )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.add_row(f"cuda:{index}", properties.name, f"{properties.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        devices.add_row("mps", "Apple GPU", "shared")
    console.print(devices)
    free = shutil.disk_usage(".").free / 2**30
    console.print(
        f"free disk here: {free:.1f} GiB; torch.compile: {'ready' if _compiles() else 'no C++ compiler found'}"
    )
    return 1 if missing else 0


def _requirements() -> tuple[list[Requirement], list[tuple[str, Requirement]]]:
    """What the installed package asks for: always, and by extra."""
    required, optional = [], []
    for text in requires("regard") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            required.append(requirement)
        else:
            extra = str(requirement.marker).partition('extra == "')[2].rstrip('"')
            optional.append((extra, requirement))
    return required, optional


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _compiles() -> bool:
    return find_spec("torch._inductor") is not None and any(
        shutil.which(name) for name in ("c++", "g++", "clang++", "cl")
    )
