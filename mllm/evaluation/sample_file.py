"""The samples of an evaluation on disk, so that its answers can be scored without the benchmark's data.

One JSON object per line: first the benchmark with its options, then the samples in order. The file documents the
samples of a result; a run with other samples is refused.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

from ...whole_files import whole_file
from ..benchmarks import Sample

__all__ = ["SampleFile", "write_samples"]

#: In the header; a file of another form is refused.
FORM = "regard samples 1"


def write_samples(path: Path, name: str, options: Mapping[str, Any], samples: Sequence[Sample]) -> SampleFile:
    """Write the samples, or check that the file already has them.

    Args:
        path: of the file; its folder is created.
        name: of the benchmark.
        options: of the benchmark, in JSON types.
        samples: of the benchmark.

    Raises:
        ValueError: the file has other samples (the first difference is shown), a duplicate id, or no samples.

    Example:
        >>> sample = Sample(id="1", image="1.jpg", question="Is there a dog in the image?", truth="no")
        >>> write_samples(Path("pope.jsonl"), "pope", {"parser": "words"}, [sample])[0] == sample
        True
    """
    if not samples:
        raise ValueError(f"the benchmark {name} has no samples; check its data")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise ValueError(f"the sample {sample.id!r} of {name} occurs twice; ids must be unique")
        seen.add(sample.id)
    header = {"form": FORM, "benchmark": name, "options": options}
    lines = [json.dumps(one, ensure_ascii=True) for one in (header, *map(asdict, samples))]
    if path.exists():
        _same(path, lines)
    else:
        with whole_file(path) as partial, partial.open("w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
    return SampleFile(path)


class SampleFile(Sequence[Sample]):
    """The samples of a file, read from disk at every access.

    Args:
        path: of the file.

    Attributes:
        name: of the benchmark, as the file has it; it is not imported here.
        options: of the benchmark.
        hash: 16 hexadecimal digits that identify the content.

    Raises:
        ValueError: the file is missing, damaged, or not a sample file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        digest, offset = hashlib.sha256(), 0
        self._offsets = array("q")
        try:
            with path.open("rb") as file:
                for line in file:
                    digest.update(line)
                    self._offsets.append(offset)
                    offset += len(line)
        except FileNotFoundError:
            raise ValueError(f"there is no file {path}; regard evaluate writes it") from None
        self.hash = digest.hexdigest()[:16]
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        header = self._line(0) if self._offsets else {}
        if header.get("form") != FORM or not isinstance(header.get("options"), dict):
            raise ValueError(f"{path} is not a sample file: it does not begin with {FORM!r}; choose another folder")
        self.name: str = str(header.get("benchmark"))
        self.options: dict[str, Any] = header["options"]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(row) for row in range(len(self)))

    @overload
    def __getitem__(self, row: int) -> Sample: ...
    @overload
    def __getitem__(self, row: slice) -> list[Sample]: ...
    def __getitem__(self, row: int | slice) -> Sample | list[Sample]:
        """A sample by its index."""
        if isinstance(row, slice):
            return [self._sample(one) for one in range(len(self))[row]]
        return self._sample(range(len(self))[row])

    def _sample(self, row: int) -> Sample:
        try:
            content = self._line(row + 1)
            return Sample(**{**content, "present": tuple(content["present"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{self.path} line {row + 2} is not a sample: {error}") from error

    def _line(self, number: int) -> dict[str, Any]:
        self._file.seek(self._offsets[number])
        line = self._file.readline()
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} line {number + 1} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.path} line {number + 1} is damaged: a JSON object is expected")
        return content


def _same(path: Path, lines: Sequence[str]) -> None:
    """Raise for the first line that differs."""
    try:
        there = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a sample file (byte {error.start}); choose another folder") from error
    for number, (old, new) in enumerate(zip(there, lines, strict=False)):
        if old != new:
            what = "was written for" if number == 0 else "has the sample"
            raise ValueError(
                f"{path} {what} {_short(old)}, not {_short(new)}: the folder belongs to another evaluation. Choose "
                f"another "
                "folder, or remove this one"
            )
    if len(there) != len(lines):
        raise ValueError(
            f"{path} has {len(there) - 1} samples, not {len(lines) - 1}: the folder belongs to another evaluation. "
            "Choose another folder, or remove this one"
        )


def _short(line: str) -> str:
    return line if len(line) < 200 else f"{line[:200]}..."
