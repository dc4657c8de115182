"""Find the features of slides in a folder, as CLAM, TRIDENT and ACMIL lay them out."""

from __future__ import annotations

import os
from pathlib import Path

from .array_features import ArrayFeatures
from .bag import Instances
from .h5_features import H5Features, find_groups

__all__ = ["find_features"]

_H5 = (".h5", ".hdf5")
_SUFFIXES = (*_H5, ".zarr", ".npy", ".pt")  # if a slide has two files, the first of these is used
_CLAM = ("h5_files", "pt_files")
_LAYOUTS = (
    "h5_files/ or pt_files/ (CLAM), features_ENCODER/ (TRIDENT), SLIDE.h5, .pt, .npy or .zarr, "
    "or one H5 with a group for each slide (ACMIL)"
)


def find_features(source: str | Path) -> tuple[dict[str, Instances], dict[str, str]]:
    """Find the features of every slide in a folder or an H5 file.

    - CLAM: `h5_files/SLIDE.h5` and `pt_files/SLIDE.pt`; the former is used if a slide has both.
    - TRIDENT: `features_ENCODER/SLIDE.h5`, or a job folder that holds one such folder, at any magnification.
    - `SLIDE.h5`, `.pt`, `.npy` or `.zarr` in the folder itself.
    - ACMIL: one H5 file with a group for each slide, or a folder that holds one such file.

    Args:
        source: the folder or the file.

    Returns:
        Name of the slide -> its features, sorted by name; and name -> label, if the file has labels.

    Raises:
        ValueError: there is no such folder, it holds no features, or several sets of them.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.mkdir(f"{folder}/pt_files")
        ...     torch.save(torch.ones(5, 8), f"{folder}/pt_files/slide_1.pt")
        ...     list(find_features(folder)[0])
        ['slide_1']
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in _H5:
        return _open_groups(path)
    if not path.is_dir():
        what = "is a file, but not an H5 file" if path.is_file() else "is not a folder"
        raise ValueError(f"{path} {what}; expected a folder with {_LAYOUTS}")
    choices = _feature_folders(path)
    if not choices:
        visible = sorted(item.name for item in path.iterdir() if not item.name.startswith("."))
        what = f"holds {', '.join(visible[:8])}{', ...' if len(visible) > 8 else ''}" if visible else "is empty"
        raise ValueError(f"{path} {what}; expected {_LAYOUTS}")
    if len(choices) > 1:
        named = ", ".join(map(os.fspath, choices))
        raise ValueError(f"{path} holds {len(choices)} sets of features; give the path of one: {named}")
    folder = choices[0]
    parts = [folder / name for name in _CLAM if (folder / name).is_dir()] or [folder]
    files = [file for part in parts for file in _feature_files(part)]
    shared = [file for file in files if file.suffix.lower() in _H5]
    if shared and parts == [folder]:
        groups = find_groups(os.fspath(shared[0]))
        if groups and len(shared) > 1:
            named = ", ".join(map(os.fspath, shared))
            raise ValueError(f"{folder} holds several files of many slides; give the path of one: {named}")
        if groups:
            return _open_groups(shared[0])
    found: dict[str, Instances] = {}
    for file in sorted(files, key=lambda file: _SUFFIXES.index(file.suffix.lower())):
        text = os.fspath(file)
        found.setdefault(file.stem, H5Features(text) if file.suffix.lower() in _H5 else ArrayFeatures(text))
    return dict(sorted(found.items())), {}


def _open_groups(path: Path) -> tuple[dict[str, Instances], dict[str, str]]:
    groups = find_groups(os.fspath(path))
    if not groups:
        raise ValueError(
            f"{path} has no groups with features, one for each slide; if it holds one slide, give its folder"
        )
    readers: dict[str, Instances] = {name: H5Features(os.fspath(path), name) for name in groups}
    return readers, {name: label for name, label in groups.items() if label is not None}


def _feature_folders(folder: Path) -> list[Path]:
    if any((folder / name).is_dir() for name in _CLAM) or _feature_files(folder):
        return [folder]
    inside = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    found = []
    for item in inside:
        if item.name.startswith("features_") or any((item / name).is_dir() for name in _CLAM):
            found.append(item)
        else:
            found += sorted(part for part in item.glob("features_*") if part.is_dir())
    return found


def _feature_files(folder: Path) -> list[Path]:
    """List feature files; unfinished files have another suffix, or a name that starts with a dot."""
    return sorted(
        item for item in folder.iterdir() if item.suffix.lower() in _SUFFIXES and not item.name.startswith(".")
    )
