"""Coordinates of a slide's patches in HDF5, as CLAM and TRIDENT store them.

Both have `coords` (patches, 2), x and y at full resolution, and give the patches' size in attributes of this dataset.
They differ in the meaning of `patch_size`: for CLAM it is the pixels read at `patch_level`, for TRIDENT those that the
encoder takes, which span `patch_size_level0` at full resolution. Where the slide has a level of exactly the patches'
scale, one file fits both. Elsewhere it follows TRIDENT and has no `patch_level`, so that CLAM stops with an error
instead of reading another field; `layout="clam"` writes what CLAM then needs.

Source: mahmoodlab/CLAM@53e2409, mahmoodlab/TRIDENT@a91fa84.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from ...whole_files import whole_file
from ..bags.h5_features import open_h5
from .grid import Grid
from .preallocated_h5 import preallocate
from .slide import Slide

__all__ = ["coordinate_attributes", "grid_fingerprint", "grid_of_attributes", "read_grid", "write_grid"]


def write_grid(
    path: str | Path,
    grid: Grid,
    *,
    slide: Slide,
    name: str | None = None,
    layout: Literal["trident", "clam"] = "trident",
) -> None:
    """Write a grid, whole or not at all.

    Args:
        path: of the file, such as `patches/ID.h5` (CLAM) or `patches/ID_patches.h5` (TRIDENT).
        grid: may be empty.
        slide: that the grid lies on.
        name: of the slide; by default that of its file.
        layout: whose meaning of `patch_size` is used, see above.

    Raises:
        OSError: the file cannot be written.
    """
    attributes = coordinate_attributes(grid, slide, name or Path(slide.path).stem, Path(path).parent)
    if layout == "clam":
        attributes |= {"patch_size": grid.side, "patch_level": 0, "downsample": (1.0, 1.0)}
        attributes |= {"level_dim": (grid.width, grid.height), "downsampled_level_dim": (grid.width, grid.height)}
    with whole_file(Path(path)) as partial:
        preallocate(partial, len(grid) * 20 + (1 << 16))
        with h5py.File(partial, "w") as file:
            write_coordinates(file, grid, attributes)
            file.attrs["complete"] = True


def write_coordinates(file: h5py.File, grid: Grid, attributes: Mapping[str, Any]) -> None:
    """Write the coordinates of a grid, their attributes and tissue shares to an open file."""
    count = len(grid)
    rows = max(1, min(count, 1024))
    coordinates = file.create_dataset("coords", data=grid.coordinates, maxshape=(None, 2), chunks=(rows, 2))
    for key, value in attributes.items():
        coordinates.attrs[key] = "None" if value is None else value
    file.create_dataset("tissue", data=grid.tissue.astype(np.float32), maxshape=(None,), chunks=(rows,))


def read_grid(path: str | Path, *, slide_mpp: float | None = None) -> Grid:
    """Read a grid that this package, TRIDENT or CLAM wrote.

    Args:
        path: of the file.
        slide_mpp: microns per pixel of the slide, which CLAM's files do not have and TRIDENT's give as a magnification
            only; an exact value in the file takes precedence.

    Raises:
        ValueError: the file is missing, damaged, or lacks the patches' size.

    Returns:
        The grid; tissue shares are 1 where the file has none.
    """
    with open_h5(str(path)) as file:
        if "coords" not in file:
            raise ValueError(f"{path} has no dataset 'coords', it has {', '.join(sorted(file)[:8]) or 'nothing'}")
        coordinates = file["coords"]
        if coordinates.ndim != 2 or coordinates.shape[1] != 2 or coordinates.dtype.kind not in "iu":
            raise ValueError(f"'coords' in {path} are not integers of shape (patches, 2)")
        tissue = file["tissue"][:] if "tissue" in file else np.ones(len(coordinates))
        return grid_of_attributes(
            coordinates[:].astype(np.int64), tissue, dict(coordinates.attrs), path=str(path), slide_mpp=slide_mpp
        )


def grid_of_attributes(
    coordinates: np.ndarray, tissue: np.ndarray, attributes: Mapping[str, Any], *, path: str, slide_mpp: float | None
) -> Grid:
    """Build the grid that the attributes of coordinates describe.

    Raises:
        ValueError: the patches' size or scale is missing.
    """
    try:
        patch = int(attributes["patch_size"])
        if _has(attributes, "patch_size_level0"):
            side = int(attributes["patch_size_level0"])
        else:
            side = round(patch * float(np.ravel(attributes["downsample"])[0]))
        if _has(attributes, "level0_width"):
            width, height = int(attributes["level0_width"]), int(attributes["level0_height"])
        else:
            downsample = np.ravel(attributes["downsample"]).astype(float)
            width, height = (round(float(one)) for one in np.ravel(attributes["level_dim"]) * downsample)
        if _has(attributes, "mpp"):
            slide_mpp = float(attributes["mpp"])
        elif slide_mpp is None:
            slide_mpp = 10 / float(attributes["level0_magnification"])
        overlap = float(attributes["overlap"]) if _has(attributes, "overlap") else 0.0
        step = attributes.get("step_size_level0", round(side - overlap * side / patch))
        if min(patch, side, step, width, height) < 1 or not slide_mpp > 0:
            raise ValueError("sizes below 1")
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"the attributes of 'coords' in {path} do not give the size of its patches ({error}); they have "
            f"{', '.join(sorted(attributes)) or 'none'}; CLAM's need the slide's microns per pixel"
        ) from error
    return Grid(
        coordinates=coordinates,
        tissue=np.asarray(tissue, np.float64),
        patch=patch,
        side=side,
        step=int(step),
        mpp=slide_mpp * side / patch,
        slide_mpp=slide_mpp,
        width=width,
        height=height,
    )


def coordinate_attributes(grid: Grid, slide: Slide, name: str, folder: Path) -> dict[str, Any]:
    """The attributes of CLAM, TRIDENT and this package; None is not known."""
    attributes: dict[str, Any] = {
        "patch_size": grid.patch,
        "patch_size_level0": grid.side,
        "step_size_level0": grid.step,
        "overlap": round((grid.side - grid.step) * grid.patch / grid.side),
        "level0_magnification": _magnification(float(slide.objective or 10 / grid.slide_mpp)),
        "target_magnification": _magnification(10 / grid.mpp),
        "level0_width": grid.width,
        "level0_height": grid.height,
        "mpp": grid.slide_mpp,
        "target_mpp": grid.mpp,
        "name": name,
        "savetodir": str(folder),
        "save_path": str(folder),
        "fingerprint": grid_fingerprint(grid),
    }
    for number, level in enumerate(slide.levels):
        if round(grid.patch * level.downsample) == grid.side:
            size = (level.width, level.height)
            attributes |= {"patch_level": number, "downsample": (float(level.downsample),) * 2}
            attributes |= {"level_dim": size, "downsampled_level_dim": size}
            break
    return attributes


def grid_fingerprint(grid: Grid) -> str:
    """A hash that is equal for two grids exactly if their patches are.

    Example:
        >>> corner = np.zeros((1, 2), np.int64)
        >>> grid = Grid(corner, np.ones(1), patch=256, side=512, step=512, mpp=0.5, slide_mpp=0.25, width=9, height=9)
        >>> len(grid_fingerprint(grid))
        32
    """
    digest = hashlib.sha256(repr((grid.patch, grid.side, grid.step, grid.width, grid.height)).encode())
    digest.update(np.ascontiguousarray(grid.coordinates, "<i8").tobytes())
    return digest.hexdigest()[:32]


def _magnification(value: float) -> float | int:
    """Rounded to an integer where it nearly is one, since both tools compute with it."""
    return round(value) if abs(value - round(value)) < 0.05 * value else round(value, 4)


def _has(attributes: Mapping[str, Any], key: str) -> bool:
    value = attributes.get(key, "None")
    return not (isinstance(value, str | bytes) and value in ("None", b"None"))
