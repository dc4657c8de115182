from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from regard.datasets.bags.h5_features import H5Features, _pieces, find_groups

VALUES = np.random.default_rng(0).standard_normal((37, 8)).astype(np.float32)
COORDINATES = np.arange(74, dtype=np.int32).reshape(37, 2)
ROWS = np.array([0, 3, 4, 21, 36])
STORED: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "rows": {"chunks": (1, 8)},
    "blocks": {"chunks": (4, 8)},
    "one chunk": {"chunks": (64, 8), "maxshape": (None, 8)},
    "columns": {"chunks": (5, 3)},
    "packed": {"chunks": (4, 8), "compression": "gzip"},
    "checked": {"chunks": (4, 8), "fletcher32": True},
}


def write(path: Path, values: np.ndarray = VALUES, **stored: Any) -> H5Features:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=values, **stored)
        file.create_dataset("coords", data=COORDINATES[: len(values)], chunks=(1, 2) if len(values) else None)
    return H5Features(str(path))


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_values_come_back_as_they_were_stored(tmp_path: Path, how: str, dtype: str) -> None:
    values = VALUES.astype(dtype)
    features = write(tmp_path / "a.h5", values, **STORED[how])
    assert features.shape() == (37, 8)
    native = torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
    torch.testing.assert_close(features.read(), native, rtol=0, atol=0)
    torch.testing.assert_close(features.read(ROWS), native[ROWS], rtol=0, atol=0)
    coordinates = features.coordinates()
    assert coordinates is not None
    torch.testing.assert_close(coordinates, torch.from_numpy(COORDINATES.astype(np.int64)))


def test_a_file_that_grew_slide_by_slide_is_read_in_order(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        features = file.create_dataset("features", (0, 8), "f4", maxshape=(None, 8), chunks=(2, 8))
        coords = file.create_dataset("coords", (0, 2), "i4", maxshape=(None, 2), chunks=(2, 2))
        for start in range(0, 37, 5):
            stop = min(start + 5, 37)
            features.resize(stop, 0)
            coords.resize(stop, 0)
            features[start:stop], coords[start:stop] = VALUES[start:stop], COORDINATES[start:stop]
            file.flush()
        pieces = _pieces(features, features.dtype)
        assert pieces is not None
        assert len(pieces[0]) > 2
    read = H5Features(str(tmp_path / "a.h5"))
    np.testing.assert_array_equal(read.read().numpy(), VALUES)
    np.testing.assert_array_equal(read.read(ROWS).numpy(), VALUES[ROWS])


@pytest.mark.parametrize("how", ["contiguous", "rows", "packed"])
def test_bfloat16_is_kept(tmp_path: Path, how: str) -> None:
    values = torch.from_numpy(VALUES).bfloat16()
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if how != "contiguous":
        settings.set_chunk((1, 8))
    if how == "packed":
        settings.set_deflate(1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = h5py.h5d.create(file.id, b"features", kind, h5py.h5s.create_simple((37, 8)), settings)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values.view(torch.int16).numpy(), mtype=kind)
    read = H5Features(str(tmp_path / "a.h5"))
    assert read.read().dtype == torch.bfloat16
    assert torch.equal(read.read(), values)
    assert torch.equal(read.read(ROWS), values[ROWS])


@pytest.mark.parametrize("how", ["contiguous", "one chunk"])
def test_a_file_in_one_piece_is_mapped_and_safe_from_writing(tmp_path: Path, how: str) -> None:
    features = write(tmp_path / "a.h5", **STORED[how])
    first = features.read()
    maps = Path("/proc/self/maps")
    if maps.exists():
        line = next(line for line in maps.read_text().splitlines() if line.endswith(str(tmp_path / "a.h5")))
        low, high = (int(bound, 16) for bound in line.split()[0].split("-"))
        assert low <= first.data_ptr() < high
    first.zero_()
    np.testing.assert_array_equal(features.read().numpy(), VALUES)


def test_a_reader_can_be_pickled(tmp_path: Path) -> None:
    features = write(tmp_path / "a.h5")
    assert torch.equal(pickle.loads(pickle.dumps(features)).read(), features.read())


def test_an_empty_slide_of_trident_has_no_instances(tmp_path: Path) -> None:
    features = write(tmp_path / "a.h5", VALUES[:0])
    assert features.shape() == (0, 8)
    assert features.read().shape == (0, 8)


def test_groups_are_found_with_their_labels(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for index, label in enumerate([1, "tumour", np.bytes_("x"), None]):
            group = file.create_group(f"slide_{index}")
            group["feat"] = VALUES
            if label is not None:
                group.attrs["label"] = label
        file.create_group("notes")
    path = str(tmp_path / "all.h5")
    assert find_groups(path) == {"slide_0": "1", "slide_1": "tumour", "slide_2": "x", "slide_3": None}
    np.testing.assert_array_equal(H5Features(path, "slide_3").read().numpy(), VALUES)
    assert H5Features(path, "slide_3").coordinates() is None
    write(tmp_path / "one.h5")
    assert find_groups(str(tmp_path / "one.h5")) == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"coords": COORDINATES}, "no dataset 'features', it has coords"),
        ({}, "no dataset 'features', it has nothing"),
        ({"features": VALUES[0]}, "one vector for the whole slide"),
        ({"features": VALUES[None]}, r"shape \(1, 37, 8\), not \(instances, width\)"),
        ({"features": COORDINATES}, "not floating point numbers"),
        ({"features/deeper": VALUES}, "not floating point numbers"),
    ],
)
def test_a_file_that_holds_something_else_is_explained(
    tmp_path: Path, content: dict[str, np.ndarray], complaint: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in content.items():
            file[name] = values
    with pytest.raises(ValueError, match=complaint) as caught:
        H5Features(str(tmp_path / "a.h5")).shape()
    assert "a.h5" in str(caught.value)


def test_a_truncated_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    features = write(path)
    whole = path.read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"a\.h5 is truncated, damaged or not an HDF5 file"):
            features.read()


def test_a_damaged_chunk_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    features = write(path, **STORED["checked"])
    with h5py.File(path) as file:
        offset = file["features"].id.get_chunk_info(3).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.h5 is truncated, damaged"):
        features.read()


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*a\.h5"):
        H5Features(str(tmp_path / "a.h5")).shape()


def test_a_file_that_another_process_writes_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path)
    hold = f"import h5py, sys; file = h5py.File({str(path)!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    writer = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(ValueError, match=r"a\.h5 cannot be opened .*wait for that.*HDF5_USE_FILE_LOCKING"):
            H5Features(str(path)).shape()
    finally:
        writer.stdin.close()
        writer.wait()
        writer.stdout.close()
    assert H5Features(str(path)).shape() == (37, 8)


def test_a_disk_without_locks_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = write(tmp_path / "a.h5")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(ValueError, match=r"HDF5_USE_FILE_LOCKING=FALSE"):
        features.shape()
