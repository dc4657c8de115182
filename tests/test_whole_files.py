from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from regard.whole_files import is_partial, remove_leftovers, whole_file, whole_folder, write_atomically


def test_a_write_that_fails_leaves_the_previous_file(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "answer.h5"
    write_atomically(target, b"before")
    full = RuntimeError(f"HDF5 reports a full disk in words (errno = {errno.ENOSPC}, ...)")
    with pytest.raises(OSError, match="no space left to write") as raised:
        _fail(whole_file(target), lambda partial: partial.write_bytes(b"half"), full)
    assert raised.value.errno == errno.ENOSPC
    assert target.read_bytes() == b"before"
    assert [path.name for path in target.parent.iterdir()] == ["answer.h5"]


def test_an_unfinished_file_keeps_its_suffix_and_is_recognised_by_its_name(tmp_path: Path) -> None:
    with whole_file(tmp_path / "slide 1.tiff") as partial:
        assert partial.suffix == ".tiff"
        assert is_partial(partial)
        partial.write_bytes(b"")
    assert (tmp_path / "slide 1.tiff").exists()
    assert not is_partial(tmp_path / "slide 1.tiff")


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("first", "second"):
        with whole_folder(target) as partial:
            (partial / f"{content}.txt").write_text(content)
            assert is_partial(partial / f"{content}.txt")
    with pytest.raises(KeyboardInterrupt):
        _fail(whole_folder(target), lambda partial: (partial / "third.txt").write_text("third"), KeyboardInterrupt())
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["model", "model/second.txt"]


def test_leftovers_are_removed_unless_recently_written(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in (".a.png.01.partial.png", ".a.png.23.partial", ".b.45.partial"))
    old.touch()
    for folder in (new, other):
        folder.mkdir()
        (folder / "part").touch()
    for path in (old, new, other, other / "part"):
        os.utime(path, (1, 1))
    remove_leftovers(tmp_path / "a.png")
    assert not old.exists()
    assert new.exists()  # its content is recent
    assert other.exists()  # belongs to another file
    remove_leftovers(tmp_path / "*")
    assert not other.exists()


def _fail(writing: AbstractContextManager[Path], write: Callable[[Path], Any], error: BaseException) -> None:
    with writing as partial:
        write(partial)
        raise error
