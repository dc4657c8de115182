"""Tensors out of files that hold more than tensors."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.tools.convert import sandbox
from regard.tools.convert.sandbox import Inert, extract, load

WEIGHTS = {"head.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(3)}


class Hostile:
    """Would touch a file if it were unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


class Odd(dict):
    """A dict subclass, as configuration libraries have."""


class Net(torch.nn.Module):
    """Something to be pickled whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Linear(2, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.register_buffer("passing", torch.zeros(2), persistent=False)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_out_and_nothing_runs(zipped: bool, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    content = {"evil": Hostile(touched), "model": WEIGHTS, "net": Net(), "more": Odd(a=torch.ones(1)), "n": [1, {2}]}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    found, walls = extract(tmp_path / "file.pth")
    assert not touched.exists()
    assert "separate process" in walls
    assert torch.equal(found["model"]["head.weight"], WEIGHTS["head.weight"])
    assert found["model"]["steps"].shape == ()
    assert found["net"].keys() == content["net"].state_dict().keys()
    assert torch.equal(found["net"]["stem.weight"], content["net"].stem.weight)
    assert torch.equal(found["more"]["a"], torch.ones(1))


def test_every_import_yields_an_inert_object(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    listed = defaultdict(list, a=[1])
    for protocol in (2, 4):
        found = load(io.BytesIO(pickle.dumps([Hostile(touched), listed, {1, 2}, slice(3), Odd(b=2)], protocol)))
        assert [type(item) for item in found[:2]] == [Inert, Inert]
        assert found[-1]["b"] == 2
    assert not touched.exists()
    thing = Inert(1, two=2)
    assert isinstance(thing(3), Inert)
    thing.append(4)
    thing.extend([5])
    assert list(thing.values()) == [4, 5]
    assert {thing: 1}[thing] == 1


def test_torchscript_archives_and_tar_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/data.pkl", b"")
    with pytest.raises(ValueError, match="a TorchScript archive, a program"):
        extract(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(ValueError, match="it is a tar file"):
        extract(tmp_path / "old.pth")


def test_a_file_without_tensors_or_truncated_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    torch.save({"x": Hostile(tmp_path / "touched")}, file)
    with pytest.raises(ValueError, match=r"file\.pth yields no tensors: ValueError: it holds no tensors"):
        extract(file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="yields no tensors"):
        extract(file)


def test_a_tensor_that_would_fill_the_memory_is_stopped(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(1 << 18, 1 << 18), "y": slice(1)}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match="yields no tensors"):
        extract(tmp_path / "bomb.pth")


def test_reading_ends_at_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(WEIGHTS, tmp_path / "file.pth")
    monkeypatch.setattr(sandbox, "_SECONDS", 0.01)
    with pytest.raises(ValueError, match=r"more than 0\.01 seconds"):
        extract(tmp_path / "file.pth")
