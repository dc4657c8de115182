"""The list of questions of an evaluation: written once, read by index, and never mixed."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from regard.mllm.benchmarks import Sample
from regard.mllm.evaluation.sample_file import SampleFile, write_samples

SAMPLES = [
    Sample(id=f"random-{index}", image=f"{index}.jpg", question="Is there a «dog»\u2028?", truth="no", present=("cat",))
    for index in range(9)
] + [Sample(id="x", image="", question="Describe.", truth={"official": ["dog"]}, part="free", groups={"pair": "1"})]


def write(path: Path, samples: list[Sample] = SAMPLES) -> SampleFile:
    return write_samples(path, "pope", {"parser": "words"}, samples)


def test_questions_are_read_as_they_were_written_in_any_order(tmp_path: Path) -> None:
    found = write(tmp_path / "new" / "samples.jsonl")
    assert list(found) == SAMPLES
    assert (len(found), found[3], found[-1], found[2:4]) == (10, SAMPLES[3], SAMPLES[-1], SAMPLES[2:4])
    assert (found.name, found.options) == ("pope", {"parser": "words"})
    with pytest.raises(IndexError):
        found[10]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["samples.jsonl"]


def test_the_same_questions_leave_the_file_alone_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    first = write(path)
    content = path.read_bytes()
    assert write(path).hash == first.hash
    others = [replace(SAMPLES[0], truth="yes"), *SAMPLES[1:]]
    with pytest.raises(ValueError, match=r'has the sample .*"truth": "no".*, not .*"truth": "yes"'):
        write(path, others)
    with pytest.raises(ValueError, match="has 10 samples, not 4"):
        write(path, SAMPLES[:4])
    with pytest.raises(ValueError, match="was written for"):
        write_samples(path, "pope", {"parser": "official"}, SAMPLES)
    assert path.read_bytes() == content
    assert write(tmp_path / "other.jsonl", others).hash != first.hash


@pytest.mark.parametrize(
    ("samples", "message"), [([], "has no samples"), ([*SAMPLES, SAMPLES[4]], "'random-4' of pope occurs twice")]
)
def test_lists_that_are_none_are_named(tmp_path: Path, samples: list[Sample], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "samples.jsonl", samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a sample file"),
        (b"{}\n", "is not a sample file"),
        (b"notes\n", "line 1 is damaged"),
        (b"[1]\n", "line 1 is damaged: a JSON object is expected"),
        (b"\xff\xfe\n", "line 1 is damaged"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        SampleFile(path)
    with pytest.raises(ValueError, match=r"samples\.jsonl"):
        write(path)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="there is no file"):
        SampleFile(tmp_path / "none.jsonl")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"id": "1"}', b'{"id": "1", "present": []}'])
def test_a_damaged_question_is_named(tmp_path: Path, line: bytes) -> None:
    path = write(tmp_path / "samples.jsonl").path
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[4:]]))
    found = SampleFile(path)
    assert found[1] == SAMPLES[1]
    with pytest.raises(ValueError, match=r"samples\.jsonl line 4 is"):
        found[2]


def test_files_are_closed_with_what_reads_them(tmp_path: Path) -> None:
    found = write(tmp_path / "samples.jsonl")
    file = found._file
    del found
    gc.collect()
    assert file.closed
