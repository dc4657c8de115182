from __future__ import annotations

import errno
from pathlib import Path

import pytest

from regard.whole_files import whole_file, write_atomically


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "answer.h5"
    write_atomically(target, b"before")
    with pytest.raises(OSError, match="no room to write"):
        _write_on_a_full_disk(target)
    assert target.read_bytes() == b"before"
    assert [path.name for path in target.parent.iterdir()] == ["answer.h5"]


def test_an_unfinished_file_has_the_suffix_of_the_whole_one_and_is_known_by_its_name(tmp_path: Path) -> None:
    with whole_file(tmp_path / "slide 1.tiff") as partial:
        assert partial.suffix == ".tiff"
        assert partial.name.startswith(".slide 1.tiff.")
        partial.write_bytes(b"")
    assert (tmp_path / "slide 1.tiff").exists()


def _write_on_a_full_disk(target: Path) -> None:
    with whole_file(target) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError(f"HDF5 tells of a full disk in words (errno = {errno.ENOSPC}, ...)")
