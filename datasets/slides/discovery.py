"""Finds slide files in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["SUFFIXES", "find_slides"]

#: Suffixes of the files in a folder that are slides.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("svs", "tif", "tiff", "btf", "tf8", "ndpi", "vms", "vmu", "scn", "mrxs", "svslide", "bif", "czi"),
        *("png", "jpg", "jpeg", "bmp", "webp", "jp2"),
    )
)


def find_slides(paths: Sequence[str | Path]) -> list[Path]:
    """Find the slides in files and folders.

    A file that is given is kept whatever it is; `open_slide` reports what is wrong with it. Folders are searched
    recursively, for the suffixes of slides only. The files of a DICOM series are one slide: the folder that holds
    them, or of several series in one folder the first file of each. Images that belong to a .vms file are not slides.

    Args:
        paths: files and folders.

    Returns:
        Paths in the order of `paths`, sorted within a folder, without duplicates.

    Raises:
        ValueError: there is no such file or folder.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        found.update(dict.fromkeys(_in_folder(path) if path.is_dir() else [path]))
    return list(found)


def _in_folder(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    found: list[Path] = []
    for name, folders, files in os.walk(root, followlinks=True):
        real = str(Path(name).resolve())
        if real in seen:  # links in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        own = [Path(name) / file for file in sorted(files) if not file.startswith(".")]
        found += _series([file for file in own if file.suffix.lower() == ".dcm"], Path(name))
        parts = {part for file in own if file.suffix.lower() == ".vms" for part in _named_in(file)}
        found += [file for file in own if file.suffix.lower() in SUFFIXES and file.name not in parts]
    yield from sorted(found)


def _series(files: Sequence[Path], folder: Path) -> list[Path]:
    """One path for each DICOM series."""
    first: dict[bytes, Path] = {}
    for file in files:
        first.setdefault(_series_number(file) or bytes(file), file)
    return [folder] if len(first) == 1 else list(first.values())


def _series_number(file: Path) -> bytes:
    """DICOM's SeriesInstanceUID, which follows the StudyInstanceUID; empty if it is not found."""
    with file.open("rb") as opened:
        start = opened.read(1 << 18)
    at = start.find(b"\x20\x00\x0d\x00UI")
    at = start.find(b"\x20\x00\x0e\x00UI", at) if at >= 0 else -1
    if at < 0:
        return b""
    return start[at + 8 : at + 8 + int.from_bytes(start[at + 6 : at + 8], "little")].rstrip(b"\0 ")


def _named_in(file: Path) -> set[str]:
    """Names of the files that belong to a Hamamatsu .vms file."""
    with file.open("rb") as opened:
        lines = opened.read(1 << 16).decode("latin-1").splitlines()
    return {line.split("=", 1)[1].strip() for line in lines if "=" in line}
