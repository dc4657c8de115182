from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.datasets.bags.array_features import ArrayFeatures

VALUES = torch.randn(11, 8, generator=torch.Generator().manual_seed(0))
ROWS = np.array([0, 3, 10])


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("loaded",)


def same(path: Path, wanted: torch.Tensor) -> None:
    features = ArrayFeatures(str(path))
    assert features.shape() == tuple(wanted.shape)
    assert features.read().dtype == wanted.dtype
    assert torch.equal(features.read(), wanted)
    assert torch.equal(features.read(ROWS), wanted[ROWS])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_a_tensor_file_is_read_in_its_type(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    torch.save(VALUES.to(dtype), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    same(tmp_path / "a.pt", VALUES.to(dtype))
    assert ArrayFeatures(str(tmp_path / "a.pt")).coordinates() is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_array_that_trident_saved_is_read(tmp_path: Path, dtype: type) -> None:
    values = VALUES.numpy().astype(dtype)
    torch.save(values, tmp_path / "a.pt")
    same(tmp_path / "a.pt", torch.from_numpy(values))


def test_a_dictionary_of_features_and_coordinates_is_read(tmp_path: Path) -> None:
    coordinates = torch.arange(22, dtype=torch.int32).reshape(11, 2)
    torch.save({"features": VALUES.clone().requires_grad_(), "coords": coordinates}, tmp_path / "a.pt")
    same(tmp_path / "a.pt", VALUES)
    read = ArrayFeatures(str(tmp_path / "a.pt"))
    found = read.coordinates()
    assert found is not None
    assert torch.equal(found, coordinates.long())
    assert not read.read().requires_grad


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4"])
def test_a_numpy_file_is_read_in_its_type(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", VALUES.numpy().astype(dtype))
    same(tmp_path / "a.npy", torch.from_numpy(VALUES.numpy().astype(dtype.replace(">", "<"))))


def test_a_numpy_file_of_bfloat16_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES.bfloat16().view(torch.int16).numpy().view("V2"))
    same(tmp_path / "a.npy", VALUES.bfloat16())


@pytest.mark.parametrize("name", ["a.npy", "a.pt"])
def test_a_file_is_mapped_and_safe_from_writing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, VALUES.numpy())
    else:
        torch.save(VALUES, path)
    features = ArrayFeatures(str(path)).read()
    if Path("/proc/self/maps").exists():
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
        ranges = [[int(bound, 16) for bound in line.split()[0].split("-")] for line in lines]
        assert any(low <= features.data_ptr() < high for low, high in ranges)
    features.zero_()
    assert torch.equal(ArrayFeatures(str(path)).read(), VALUES)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        torch.save({"features": VALUES, "more": Code()}, "a.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"a\.pt holds more than numbers, .*it was not loaded"):
            ArrayFeatures("a.pt").read()
    array = np.array([Code()], dtype=object)
    np.save("b.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"b\.npy"):
        ArrayFeatures("b.npy").read()
    torch.save(array, "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt"):
        ArrayFeatures("c.pt").read()
    assert not Path("loaded").exists()


@pytest.mark.parametrize("name", ["a.npy", "a.pt"])
def test_a_truncated_file_is_explained(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, VALUES.numpy())
    else:
        torch.save(VALUES, path)
    whole = path.read_bytes()
    for kept in (0, 3, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"{name} is truncated or damaged"):
            ArrayFeatures(str(path)).read()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (VALUES[0], r"shape \(8,\); expected"),
        (VALUES.long(), "int64 of shape"),
        ([VALUES], "holds a list"),
        ({"tokens": VALUES}, "no 'features', it has tokens"),
    ],
)
def test_a_file_that_holds_something_else_is_explained(tmp_path: Path, value: Any, complaint: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt .*{complaint}"):
        ArrayFeatures(str(tmp_path / "a.pt")).shape()


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*a\.pt"):
        ArrayFeatures(str(tmp_path / "a.pt")).shape()


def test_without_zarr_its_installation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"a\.zarr is a zarr store; to read it: pip install zarr"):
        ArrayFeatures(str(tmp_path / "a.zarr")).shape()


def test_a_zarr_store_is_read(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr stores are read with zarr: regard[test], regard[zarr]")
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group["features"] = VALUES.half().numpy()
    group["coords"] = np.arange(22).reshape(11, 2)
    same(tmp_path / "a.zarr", VALUES.half())
    found = ArrayFeatures(str(tmp_path / "a.zarr")).coordinates()
    assert found is not None
    assert found.tolist()[10] == [20, 21]
