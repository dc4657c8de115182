"""Features of a slide's patches in HDF5, as CLAM, TRIDENT and this package read them.

`features` (patches, width) and `coords` (patches, 2) have one row a patch; their attributes are those of `patch_file`,
and the encoder. A file is written whole or not at all, and records what it was made from, so that it is reused for that
only. `fingerprint` is that of the requested grid; its patches that could not be read are in `skipped`.
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
from .preallocated_h5 import PreallocatedRows, create_preallocated, preallocate
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
    """Write features as they are computed, in any order; patches without features are listed as `skipped`.

    Memory use does not grow with the slide.

    Args:
        path: of the file; its folder is made.
        chunks: indices of patches in the grid, each once, and their features.
        grid: of the patches; may be empty.
        slide: that the grid lies on.
        encoder: its name.
        width: of the features.
        name: of the slide; by default that of its file.
        dtype: of the stored features.
        made_from: what else the features depend on, such as a hash of the encoder's weights; in JSON's types.

    Raises:
        ValueError: features have another width, are not finite, or come twice.
        OSError: the file cannot be written; nothing of it remains.

    Returns:
        Number of patches that are in the file.
    """
    name = name or Path(slide.path).stem
    count = len(grid)
    written = np.zeros(count, bool)
    with whole_file(Path(path)) as partial:
        preallocate(partial, count * (width * np.dtype(dtype).itemsize + 40) + (1 << 16))
        with h5py.File(partial, "w") as file:
            features = create_preallocated(file, "features", (count, width), dtype, _CHUNK_ROWS)
            create_preallocated(file, "skipped", (count, 2), np.int64, _CHUNK_ROWS)
            folder = Path(path).parent
            write_coordinates(file, grid, coordinate_attributes(grid, slide, name, folder) | {"encoder": encoder})
            for key, value in {"name": name, "savetodir": str(folder), "encoder": encoder}.items():
                features.attrs[key] = value
            file.attrs["identity"] = features_identity(grid, encoder=encoder, dtype=dtype, made_from=made_from)
            file.attrs["made_from"] = json.dumps(dict(made_from or {}), sort_keys=True)
            file.attrs["complete"] = False
        with PreallocatedRows(partial, "features") as rows:
            for indices, values in chunks:
                _check_chunk(indices, values, grid, written, width=width, name=name, dtype=dtype)
                rows.write(indices, values)
                written[indices] = True
            if not written.all():
                rows.keep(np.flatnonzero(written))
        with h5py.File(partial, "r+") as file:  # needs no more space
            for key, values in (("coords", grid.coordinates[written]), ("tissue", grid.tissue[written])):
                file[key][: len(values)] = values
            file["skipped"][: int((~written).sum())] = grid.coordinates[~written]
            for key in ("features", "coords", "tissue"):
                file[key].resize(int(written.sum()), 0)
            file["skipped"].resize(int((~written).sum()), 0)
            file.attrs.modify("complete", True)
    return int(written.sum())


def read_features(
    path: str | Path, *, slide_mpp: float | None = None
) -> tuple[Float[np.ndarray, "patches width"], Grid, dict[str, Any]]:
    """Read features, the grid of exactly their patches, and all attributes; also of TRIDENT's files.

    Args:
        path: of the file.
        slide_mpp: microns per pixel of the slide, for files that do not hold it.

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
    """Check that a file holds complete, finite features of exactly these patches by this encoder.

    Args:
        path: of the file.
        grid: of the patches.
        encoder: its name.
        width: of the features.
        dtype: of the stored features.
        made_from: as given to `write_features`.

    Returns:
        None if it does, else the reason.
    """
    try:
        with open_h5(str(path)) as file:
            if not file.attrs.get("complete", False) or not {"features", "coords", "skipped"} <= set(file):
                return f"{path} was not written by regard, or is incomplete"
            if file.attrs.get("identity") != features_identity(grid, encoder=encoder, dtype=dtype, made_from=made_from):
                return f"{path} is of other patches, of another encoder, or of another version of the slide"
            features, coordinates, skipped = file["features"], file["coords"], file["skipped"]
            if features.shape != (len(coordinates), width) or features.dtype != np.dtype(dtype):
                return f"{path} has features {features.shape} for {len(coordinates)} patches of width {width}"
            all_corners = np.concatenate([coordinates[:], skipped[:]])
            if len(all_corners) != len(grid) or not np.array_equal(_sorted(all_corners), _sorted(grid.coordinates)):
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
    """A hash that is equal for two runs exactly if they would write the same features."""
    content = json.dumps([grid_fingerprint(grid), encoder, dtype, dict(made_from or {})], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def export_pt(features: str | Path, path: str | Path) -> None:
    """Copy the features of a file to CLAM's `pt_files/ID.pt`: one float32 tensor.

    Args:
        features: an HDF5 file.
        path: of the tensor.

    Raises:
        ValueError: the features cannot be read.
        OSError: the file cannot be written.
    """
    tensor = H5Features(str(features)).read().float()
    with whole_file(Path(path)) as partial:
        torch.save(tensor.clone(), partial)


def _check_chunk(
    indices: Int[np.ndarray, " n"],
    values: Float[np.ndarray, "n found"],
    grid: Grid,
    written: np.ndarray,
    *,
    width: int,
    name: str,
    dtype: str,
) -> None:
    if values.shape[1] != width:
        raise ValueError(f"the encoder gives {values.shape[1]} values for a patch of {name}, not {width}")
    if written[indices].any() or len(np.unique(indices)) != len(indices):
        raise ValueError(f"the features of a patch of {name} were given twice")
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(dtype)).all(1)
    if not finite.all():
        x, y = grid.coordinates[indices[~finite][0]]
        raise ValueError(
            f"the features of {(~finite).sum()} patches of {name} are not finite as {dtype}, the first at x={x}, "
            f"y={y}; use float32, and check the encoder's weights"
        )


def _sorted(coordinates: Int[np.ndarray, "patches 2"]) -> Int[np.ndarray, "patches 2"]:
    return coordinates[np.lexsort(coordinates.T)]
