"""Features of a slide in its own `.pt`, `.npy` or `.zarr` file.

A `.pt` file is a tensor (CLAM), a NumPy array (TRIDENT), or a dictionary with `features` and maybe `coords`. It is read
with torch's restricted unpickler, which runs no code from the file. Files are memory-mapped where possible.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ArrayFeatures"]

_FEATURES = ("features", "feat", "feats")
_COORDINATES = ("coords", "coordinates")
_DAMAGED = "is truncated or damaged ({}); extract the features of this slide again"
# What is needed to build an array of numbers; none of it runs other code.
_ARRAY_PARTS = [
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64")),
]


@dataclass(frozen=True)
class ArrayFeatures:
    """The instances of a bag in their own file.

    Args:
        path: ends in `.pt`, `.npy` or `.zarr`.

    Raises:
        ValueError: from every method, if the file is missing or damaged, holds code, or holds something else.
        ImportError: the file is a zarr store and zarr is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(torch.ones(5, 8, dtype=torch.bfloat16), f"{folder}/slide.pt")
        ...     ArrayFeatures(f"{folder}/slide.pt").read().dtype
        torch.bfloat16
    """

    path: str

    def shape(self) -> tuple[int, int]:
        """Return number of instances and feature width."""
        count, width = self._open()[0].shape
        return int(count), int(width)

    def read(self, rows: Int[np.ndarray, " rows"] | None = None) -> Float[Tensor, "instances width"]:
        """Read the features, or some rows in ascending order."""
        features = self._open()[0]
        if isinstance(features, Tensor):
            return features if rows is None else features[torch.from_numpy(rows)]
        values = features[:] if rows is None else features.oindex[rows]  # zarr
        return torch.from_numpy(np.ascontiguousarray(values))

    def coordinates(self) -> Int[Tensor, "instances 2"] | None:
        """Read top left corners, if the file has them."""
        found = self._open()[1]
        if found is None:
            return None
        values = found if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found[:]))
        if values.ndim != 2 or values.is_floating_point():
            raise ValueError(f"the coordinates in {self.path} are not integers of shape (instances, 2)")
        return values.to(torch.int64)

    def _open(self) -> tuple[Any, Any]:
        """Features, as a tensor or a zarr array of two axes, and coordinates or None."""
        if not Path(self.path).exists():
            raise ValueError(f"there is no file {self.path}")
        openers: dict[str, Callable[[str], Any]] = {".pt": _open_pt, ".npy": _open_npy, ".zarr": _open_zarr}
        found = openers[Path(self.path).suffix.lower()](self.path)
        coordinates = None
        if not hasattr(found, "shape"):
            features = next((found[name] for name in _FEATURES if name in found), None)
            coordinates = next((found[name] for name in _COORDINATES if name in found), None)
            if features is None:
                raise ValueError(f"{self.path} has no 'features', it has {', '.join(map(str, found)) or 'nothing'}")
            found, coordinates = _tensor(features), None if coordinates is None else _tensor(coordinates)
        floating = found.is_floating_point() if isinstance(found, Tensor) else np.dtype(found.dtype).kind == "f"
        if len(found.shape) != 2 or not floating:
            raise ValueError(
                f"{self.path} holds {found.dtype} of shape {tuple(found.shape)}; "
                "expected floating point numbers (instances, width)"
            )
        return found, coordinates


def _tensor(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "V" and value.dtype.itemsize == 2:  # how NumPy stores bfloat16, which it does not support
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    if value.dtype.kind not in "fiu":
        raise ValueError(f"it holds {value.dtype}; expected floating point numbers")
    return torch.from_numpy(value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("=")))


def _open_pt(path: str) -> Any:
    mapped = zipfile.is_zipfile(path)  # else a file of torch before 1.6, or a damaged one
    try:
        with torch.serialization.safe_globals(_ARRAY_PARTS):
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "GLOBAL" not in reason and "reduce" not in reason:
            raise ValueError(f"{path} {_DAMAGED.format('it is not a PyTorch file')}") from error
        raise ValueError(
            f"{path} holds more than numbers, and loading it could run code; it was not loaded. "
            "Save the features as one tensor with torch.save"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, struct.error) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends"
        raise ValueError(f"{path} {_DAMAGED.format(reason)}") from error
    if isinstance(value, dict):
        return value
    if not isinstance(value, Tensor | np.ndarray):
        raise ValueError(f"{path} holds a {type(value).__name__}; expected one tensor (instances, width)")
    return _tensor(value)


def _open_npy(path: str) -> Any:
    try:
        return _tensor(np.load(path, mmap_mode="c", allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} {_DAMAGED.format(error)}") from error


def _open_zarr(path: str) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path} is a zarr store; to read it: pip install zarr") from error
    try:
        return zarr.open(path, mode="r")
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} {_DAMAGED.format(error)}") from error
