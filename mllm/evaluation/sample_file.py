"""The questions of an evaluation on disk: what was asked of which image, so that answers can be scored anywhere.

One JSON object a line: first the benchmark with its options, then the questions in their order. The file is the list of
ids that a result is about; a run that would ask something else does not touch it.
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

#: Of the header; a file of another form is refused.
FORM = "regard samples 1"


def write_samples(path: Path, name: str, options: Mapping[str, Any], samples: Sequence[Sample]) -> SampleFile:
    """Write the questions, or find that they are there already.

    Args:
        path: of the file; its folder is made.
        name: of the benchmark.
        options: of the benchmark, in JSON's types.
        samples: the questions.

    Raises:
        ValueError: the file has other questions (the first difference is told), an id is double, or there are none.

    Example:
        >>> sample = Sample(id="1", image="1.jpg", question="Is there a dog in the image?", truth="no")
        >>> write_samples(Path("pope.jsonl"), "pope", {"parser": "words"}, [sample])[0] == sample
        True
    """
    if not samples:
        raise ValueError(f"the benchmark {name} has no questions; look at its data")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise ValueError(f"the question {sample.id!r} of {name} is there twice; every question needs its own id")
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
    """The questions of a file; they are read from the disk whenever one is asked for.

    Args:
        path: of the file.

    Attributes:
        name: of the benchmark, as the file has it; whether to import it is for the reader to say.
        options: of the benchmark.
        hash: 16 hexadecimal digits that are other ones for any other questions.

    Raises:
        ValueError: the file is missing, damaged, or none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        whole, place = hashlib.sha256(), 0
        self._places = array("q")
        try:
            with path.open("rb") as file:
                for line in file:
                    whole.update(line)
                    self._places.append(place)
                    place += len(line)
        except FileNotFoundError:
            raise ValueError(f"there is no file {path}; an evaluation writes it") from None
        self.hash = whole.hexdigest()[:16]
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        header = self._line(0) if self._places else {}
        if header.get("form") != FORM or not isinstance(header.get("options"), dict):
            raise ValueError(f"{path} does not begin as a file of questions ({FORM!r}); name another folder")
        self.name: str = str(header.get("benchmark"))
        self.options: dict[str, Any] = header["options"]

    def __len__(self) -> int:
        return len(self._places) - 1

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(row) for row in range(len(self)))

    @overload
    def __getitem__(self, row: int) -> Sample: ...
    @overload
    def __getitem__(self, row: slice) -> list[Sample]: ...
    def __getitem__(self, row: int | slice) -> Sample | list[Sample]:
        """A question by its place."""
        if isinstance(row, slice):
            return [self._sample(one) for one in range(len(self))[row]]
        return self._sample(range(len(self))[row])

    def _sample(self, row: int) -> Sample:
        try:
            content = self._line(row + 1)
            return Sample(**{**content, "present": tuple(content["present"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{self.path} line {row + 2} is no question: {error}") from error

    def _line(self, number: int) -> dict[str, Any]:
        self._file.seek(self._places[number])
        line = self._file.readline()
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} line {number + 1} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.path} line {number + 1} is damaged: a table is expected")
        return content


def _same(path: Path, lines: Sequence[str]) -> None:
    """Complain of the first line that a file has otherwise."""
    try:
        there = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no file of questions (byte {error.start}); name another folder") from error
    for number, (old, new) in enumerate(zip(there, lines, strict=False)):
        if old != new:
            what = "was made with" if number == 0 else "asks"
            raise ValueError(
                f"{path} {what} {_short(old)} and not {_short(new)}: the folder is of another evaluation. Name another "
                "folder, or take this one away"
            )
    if len(there) != len(lines):
        raise ValueError(
            f"{path} has {len(there) - 1} questions and not {len(lines) - 1}: the folder is of another evaluation. "
            "Name another folder, or take this one away"
        )


def _short(line: str) -> str:
    return line if len(line) < 200 else f"{line[:200]}..."
