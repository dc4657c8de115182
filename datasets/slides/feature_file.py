"""Features of a slide's patches in HDF5 that CLAM, TRIDENT and this package read.

`features` (patches, width) and `coords` (patches, 2) lie row by row; their attributes are those of `patch_file`, and
the encoder. A file is there whole or not at all, and tells what it was made from, so that it is used again only for
that. `fingerprint` is that of the grid that was asked for; its patches that could not be read are in `skipped`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int

from ...whole_files import whole_file
from ..bags.h5_features import H5Features, open_h5
from .grid import Grid
from .patch_file import coordinate_attributes, grid_fingerprint, grid_of_attributes, write_coordinates
from .preallocated_h5 import ReservedRows, create_reserved, reserve
from .slide import Slide

__all__ = ["check_features", "export_pt", "features_identity", "read_features", "write_features"]

_CHUNK_ROWS = 1024
_BLOCK_ROWS = 8192


def write_features(
    path: str | Path,
    chunks: Iterable[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n width"]]],
    grid: Grid,
    *,
    slide: Slide,
    encoder: str,
    width: int,
    name: str | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    made_from: Mapping[str, Any] | None = None,
) -> int:
    """Write features as they come, in any order; patches that never come are left out and noted as `skipped`.

    The memory needed does not grow with the slide.

    Args:
        path: of the file; its folder is made.
        chunks: places in the grid, each once, and their features.
        grid: of the patches; it may have none.
        slide: on which it lies.
        encoder: its name.
        width: of the features.
        name: of the slide; that of its file if not given.
        dtype: in which features are kept.
        made_from: what else the features depend on, such as a hash of the encoder's weights; in JSON's types.

    Raises:
        ValueError: features have another width, are not finite, or come twice.
        OSError: the file cannot be written; nothing of it is left.

    Returns:
        Number of patches that are in the file.
    """
    name = name or Path(slide.path).stem
    count = len(grid)
    came = np.zeros(count, bool)
    with whole_file(Path(path)) as place:
        reserve(place, count * (width * np.dtype(dtype).itemsize + 40) + (1 << 16))
        with h5py.File(place, "w") as file:
            features = create_reserved(file, "features", (count, width), dtype, _CHUNK_ROWS)
            create_reserved(file, "skipped", (count, 2), np.int64, _CHUNK_ROWS)
            folder = Path(path).parent
            write_coordinates(file, grid, coordinate_attributes(grid, slide, name, folder) | {"encoder": encoder})
            for key, value in {"name": name, "savetodir": str(folder), "encoder": encoder}.items():
                features.attrs[key] = value
            file.attrs["identity"] = features_identity(grid, encoder=encoder, dtype=dtype, made_from=made_from)
            file.attrs["made_from"] = json.dumps(dict(made_from or {}), sort_keys=True)
            file.attrs["complete"] = False
        with ReservedRows(place, "features") as rows:
            for places, values in chunks:
                _check_chunk(places, values, grid, came, width=width, name=name, dtype=dtype)
                rows.write(places, values)
                came[places] = True
            if not came.all():
                rows.keep(np.flatnonzero(came))
        with h5py.File(place, "r+") as file:  # takes no more room
            for key, values in (("coords", grid.coordinates[came]), ("tissue", grid.tissue[came])):
                file[key][: len(values)] = values
            file["skipped"][: int((~came).sum())] = grid.coordinates[~came]
            for key in ("features", "coords", "tissue"):
                file[key].resize(int(came.sum()), 0)
            file["skipped"].resize(int((~came).sum()), 0)
            file.attrs.modify("complete", True)
    return int(came.sum())


def read_features(
    path: str | Path, *, slide_mpp: float | None = None
) -> tuple[Float[np.ndarray, "patches width"], Grid, dict[str, Any]]:
    """Features, the grid of just their patches, and all attributes, also of TRIDENT's files.

    Args:
        path: of the file.
        slide_mpp: microns per pixel of the slide, for files that do not tell it.

    Raises:
        ValueError: the file is missing, damaged or holds something else.
    """
    features = H5Features(str(path)).read().numpy()
    with open_h5(str(path)) as file:
        if "coords" not in file or len(file["coords"]) != len(features):
            raise ValueError(f"{path} has no coordinates for its {len(features)} features; extract them again")
        attributes = {**file.attrs, **file["features"].attrs, **file["coords"].attrs}
        coordinates = file["coords"][:].astype(np.int64)
        tissue = file["tissue"][:] if "tissue" in file else np.ones(len(features))
    grid = grid_of_attributes(coordinates, tissue, attributes, path=str(path), slide_mpp=slide_mpp)
    return features, grid, attributes


def check_features(
    path: str | Path,
    *,
    grid: Grid,
    encoder: str,
    width: int,
    dtype: Literal["float32", "float16"] = "float32",
    made_from: Mapping[str, Any] | None = None,
) -> str | None:
    """Whether a file has whole and sound features of just these patches by just this encoder.

    Args:
        path: of the file.
        grid: of the patches.
        encoder: its name.
        width: of the features.
        dtype: in which they are kept.
        made_from: as it was given to `write_features`.

    Returns:
        None if so, else why not.
    """
    try:
        with open_h5(str(path)) as file:
            if not file.attrs.get("complete", False) or not {"features", "coords", "skipped"} <= set(file):
                return f"{path} was not written by regard, or not to its end"
            if file.attrs.get("identity") != features_identity(grid, encoder=encoder, dtype=dtype, made_from=made_from):
                return f"{path} is of other patches, of another encoder, or of another version of the slide"
            features, coordinates, skipped = file["features"], file["coords"], file["skipped"]
            if features.shape != (len(coordinates), width) or features.dtype != np.dtype(dtype):
                return f"{path} has features {features.shape} for {len(coordinates)} patches of width {width}"
            all_places = np.concatenate([coordinates[:], skipped[:]])
            if len(all_places) != len(grid) or not np.array_equal(_sorted(all_places), _sorted(grid.coordinates)):
                return f"{path} has other coordinates than the grid"
            for start in range(0, len(features), _BLOCK_ROWS):
                if not np.isfinite(features[start : start + _BLOCK_ROWS]).all():
                    return f"{path} has features that are not finite"
    except ValueError as error:
        return str(error)
    return None


def features_identity(
    grid: Grid, *, encoder: str, dtype: str = "float32", made_from: Mapping[str, Any] | None = None
) -> str:
    """The same for two runs just if they would write the same features."""
    told = json.dumps([grid_fingerprint(grid), encoder, dtype, dict(made_from or {})], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def export_pt(features: str | Path, path: str | Path) -> None:
    """Write the features of a file once more as CLAM's `pt_files/ID.pt`: one float32 tensor.

    Args:
        features: an HDF5 file.
        path: of the tensor.

    Raises:
        ValueError: the features cannot be read.
        OSError: the file cannot be written.
    """
    tensor = H5Features(str(features)).read().float()
    with whole_file(Path(path)) as place:
        torch.save(tensor.clone(), place)


def _check_chunk(
    places: Int[np.ndarray, " n"],
    values: Float[np.ndarray, "n found"],
    grid: Grid,
    came: np.ndarray,
    *,
    width: int,
    name: str,
    dtype: str,
) -> None:
    if values.shape[1] != width:
        raise ValueError(f"the encoder gives {values.shape[1]} numbers for a patch of {name}, not {width}")
    if came[places].any() or len(np.unique(places)) != len(places):
        raise ValueError(f"the features of a patch of {name} came twice")
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(dtype)).all(1)
    if not finite.all():
        x, y = grid.coordinates[places[~finite][0]]
        raise ValueError(
            f"the features of {(~finite).sum()} patches of {name} are not finite as {dtype}, the first at x={x}, "
            f"y={y}; compute and keep them in float32, and look at the encoder's weights"
        )


def _sorted(coordinates: Int[np.ndarray, "patches 2"]) -> Int[np.ndarray, "patches 2"]:
    return coordinates[np.lexsort(coordinates.T)]
