"""Answers on disk: nothing that was whole is lost, nothing that is broken is taken for whole, nothing is mixed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import regard
from regard.mllm.evaluation.answer_files import Answers, StoredAnswer, activity_summary, find_arms, read_answers
from regard.mllm.evaluation.answer_store import AnswerWriter
from regard.mllm.evaluation.arm_settings import Arm
from regard.mllm.session.activity import Activity

ARM = Arm(
    benchmark="pope",
    model="llava",
    revision="abc",
    intervention="",
    prompt="{question}",
    decoding={"max_new_tokens": 8, "beams": 1},
    code="0.1.0",
)


def answer(index: int) -> StoredAnswer:
    text = f"Yes, “{index}”\nand a line separator \u2028."
    return StoredAnswer(
        id=f"adversarial/{index}",
        text=text,
        tokens=index % 9,
        at_limit=index % 9 == 8,
        activity=[{"intervention": "vhr", "rows": index, "moved": 0.5}],
    )


ANSWERS = [answer(index) for index in range(30)]


def write(folder: Path, answers: list[StoredAnswer], name: str = "base", **options: int) -> Path:
    with AnswerWriter(folder, name, ARM, **options) as writer:
        for one in answers:
            if one.id not in writer.done:
                writer.add(one)
    return writer.path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, ANSWERS)
    answers = read_answers(tmp_path, "base")
    assert list(answers) == ANSWERS
    assert list(answers) == ANSWERS  # as often as one likes
    assert (answers.arm, answers.duplicates, answers.unfinished) == (ARM, 0, [])


def test_every_answer_is_in_the_file_before_the_next_one(tmp_path: Path) -> None:
    with AnswerWriter(tmp_path, "base", ARM) as writer:
        for index, one in enumerate(ANSWERS, start=1):
            writer.add(one)
            assert len(writer.path.read_bytes().splitlines()) == index + 1
            assert list(read_answers(tmp_path, "base")) == ANSWERS[:index]


CHILD = """
import sys, time
from pathlib import Path
from regard.mllm.evaluation.answer_files import StoredAnswer
from regard.mllm.evaluation.answer_store import AnswerWriter
from regard.mllm.evaluation.arm_settings import Arm
arm = Arm(benchmark="b", model="m", revision="1", intervention="", prompt="", decoding={}, code="1")
with AnswerWriter(Path(sys.argv[1]), "base", arm) as writer:
    for index in range(2500):
        if str(index) not in writer.done:
            writer.add(StoredAnswer(id=str(index), text="é " * (index % 97), tokens=index, at_limit=False))
            time.sleep(float(sys.argv[2]))
assert "torch" not in sys.modules
"""


def test_runs_that_are_killed_ten_times_leave_the_file_of_an_unbroken_one(tmp_path: Path) -> None:
    paths = str(Path(regard.__file__).parents[1])

    def start(folder: str, pause: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / folder), str(pause)]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})

    assert start("whole", 0).wait() == 0
    moments, broken, sizes = random.Random(0), tmp_path / "broken" / "base.jsonl", [0]
    for _ in range(10):
        child = start("broken", 0.0004)
        while child.poll() is None and (not broken.exists() or broken.stat().st_size <= sizes[-1]):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.06))
        child.kill()
        assert child.wait() == -9
        sizes.append(broken.stat().st_size)
    assert sizes == sorted(set(sizes))  # every run got further
    assert start("broken", 0).wait() == 0
    assert broken.read_bytes() == (tmp_path / "whole" / "base.jsonl").read_bytes()


def test_a_file_that_is_cut_at_any_byte_is_repaired_and_ends_like_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a thousand of them take their time
    whole = write(tmp_path / "whole", ANSWERS[:3]).read_bytes()
    path = tmp_path / "cut" / "base.jsonl"
    path.parent.mkdir()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with AnswerWriter(tmp_path / "cut", "base", ARM) as writer:
            assert writer.repaired == (end - whole[:end].rfind(b"\n") - 1)
            assert len(writer.done) == max(0, whole[:end].count(b"\n") - 1)
        write(tmp_path / "cut", ANSWERS[:3])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("filling", [b"\0" * 5000, b'{"id": "x' + b"y" * 200_000])
def test_what_a_power_cut_leaves_behind_is_cut_off(tmp_path: Path, filling: bytes) -> None:
    path = write(tmp_path, ANSWERS[:5])
    path.write_bytes(path.read_bytes() + filling)
    assert list(read_answers(tmp_path, "base")) == ANSWERS[:5]
    write(tmp_path, ANSWERS)
    assert list(read_answers(tmp_path, "base")) == ANSWERS


def test_reading_leaves_an_unfinished_line_out_and_alone(tmp_path: Path) -> None:
    path = write(tmp_path, ANSWERS)
    path.write_bytes(path.read_bytes()[:-4])
    content, answers = path.read_bytes(), read_answers(tmp_path, "base")
    assert list(answers) == ANSWERS[:-1]
    assert answers.unfinished == [path]
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "is damaged"),
        (b"", "is damaged"),
        (b"3", "a JSON object is expected"),
        (b"[" * 100_000, "is damaged"),
        (b'{"id": "\xff"}', "is not UTF-8.*at byte 8"),
        (b'{"id": "x"}', "is not an answer"),
        (b'{"id": 3, "text": "", "tokens": 1, "at_limit": false, "activity": []}', "id is int"),
        (b'{"id": "x", "text": "", "tokens": true, "at_limit": false, "activity": []}', "tokens is bool"),
        (b'{"id": "x", "text": "", "tokens": 1, "at_limit": false, "activity": [{"moved": NaN}]}', "NaN"),
        (b'{"id": "x", "text": "", "tokens": 1, "at_limit": false, "activity": [1]}', "activity"),
    ],
)
def test_a_damaged_line_in_the_middle_names_file_and_line_and_stays(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path, ANSWERS)
    lines = path.read_bytes().splitlines()
    lines[7] = line
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"base\.jsonl line 8 .*{message}"):
        list(read_answers(tmp_path, "base"))
    with pytest.raises(ValueError, match=r"base\.jsonl line 8"):
        AnswerWriter(tmp_path, "base", ARM)
    assert path.read_bytes() == content


def test_of_two_answers_the_first_counts_and_the_other_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path, ANSWERS)
    lines = path.read_text("utf-8").split("\n")
    again = {**json.loads(lines[4]), "text": "No."}
    path.write_text("\n".join([*lines[:-1], json.dumps(again), lines[9], ""]), "utf-8")
    answers = read_answers(tmp_path, "base")
    assert list(answers) == ANSWERS
    assert answers.duplicates == 2


def test_a_sample_is_not_answered_twice(tmp_path: Path) -> None:
    with AnswerWriter(tmp_path, "base", ARM) as writer:
        writer.add(ANSWERS[0])
        with pytest.raises(ValueError, match="has an answer"):
            writer.add(ANSWERS[0])


CHANGES = [
    ({"benchmark": "chair"}, "benchmark 'pope' -> 'chair'"),
    ({"model": "qwen"}, "model 'llava' -> 'qwen'"),
    ({"revision": "abd"}, "revision 'abc' -> 'abd'"),
    ({"intervention": "vhr"}, "intervention '' -> 'vhr'"),
    ({"prompt": "{question} "}, "prompt '{question}' -> '{question} '"),
    ({"code": "0.1.1"}, "code '0.1.0' -> '0.1.1'"),
    ({"decoding": {"max_new_tokens": 8, "beams": 5}}, "decoding beams 1 -> 5"),
    ({"decoding": {"max_new_tokens": 8, "beams": 1, "seed": 0}}, "decoding seed unset -> 0"),
    ({"decoding": {"beams": 1}}, "decoding max_new_tokens 8 -> unset"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_any_other_setting_is_another_arm_and_says_what_changed(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    other = replace(ARM, **change)
    assert other.hash != ARM.hash
    assert ARM.changes(other) == [message]
    path = write(tmp_path, ANSWERS)
    path.write_bytes(path.read_bytes()[:-4])
    content = path.read_bytes()
    with pytest.raises(ValueError, match="other settings") as caught:
        AnswerWriter(tmp_path, "base", other)
    assert message in str(caught.value)
    assert path.read_bytes() == content  # not even repaired
    with pytest.raises(ValueError, match="other settings"):
        AnswerWriter(tmp_path, "base", other, shard=0, shards=2)


def test_the_order_of_settings_does_not_matter() -> None:
    assert replace(ARM, decoding=dict(reversed(ARM.decoding.items()))).hash == ARM.hash


@pytest.mark.parametrize("value", [(1, 2), {3}, float("nan"), {1: 2}, Path("x")])
def test_settings_that_json_would_change_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="decoding"):
        replace(ARM, decoding={"value": value})


@pytest.mark.parametrize("shards", [2, 3, 7, 40])
def test_shards_read_as_one_run(tmp_path: Path, shards: int) -> None:
    write(tmp_path / "one", ANSWERS)
    for shard in reversed(range(shards)):
        write(tmp_path / "many", ANSWERS[shard::shards], shard=shard, shards=shards)
    assert list(read_answers(tmp_path / "many", "base")) == list(read_answers(tmp_path / "one", "base"))
    assert find_arms(tmp_path / "many").keys() == {"base"}


def test_another_number_of_shards_answers_nothing_again(tmp_path: Path) -> None:
    write(tmp_path, ANSWERS[0:20:2], shard=0, shards=2)
    write(tmp_path, ANSWERS)
    answers = read_answers(tmp_path, "base")
    assert sorted(one.id for one in answers) == sorted(one.id for one in ANSWERS)
    assert answers.duplicates == 0


def test_shards_of_several_arms_are_not_mixed(tmp_path: Path) -> None:
    first = write(tmp_path / "a", ANSWERS[::2], shard=0, shards=2)
    with AnswerWriter(tmp_path / "b", "base", replace(ARM, intervention="vhr"), shard=1, shards=2) as writer:
        writer.add(ANSWERS[1])
    with pytest.raises(ValueError, match=r"1-of-2.*intervention 'vhr' -> ''"):
        Answers([first, writer.path])


def test_arms_whose_names_begin_alike_stay_apart(tmp_path: Path) -> None:
    for name in ("var", "var+pai", "var.b"):
        write(tmp_path, ANSWERS[:2], name=name)
        write(tmp_path, ANSWERS[2:3], name=name, shard=1, shards=2)
    assert {name: len(files) for name, files in find_arms(tmp_path).items()} == {"var": 2, "var+pai": 2, "var.b": 2}


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a.0-of-2", "a b"])
def test_a_name_that_is_no_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a valid name of an answer file"):
        AnswerWriter(tmp_path, name, ARM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shard", "shards"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_is_none_is_named(tmp_path: Path, shard: int, shards: int) -> None:
    with pytest.raises(ValueError, match=f"no shard {shard} of {shards}"):
        AnswerWriter(tmp_path, "base", ARM, shard=shard, shards=shards)


@pytest.mark.parametrize("content", [b"my notes", b"a\nb", b"[1]\n", b'{"form": "else"}\n', b"\xff\xfe\n", b"{}"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "base.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"base\.jsonl"):
        AnswerWriter(tmp_path, "base", ARM)
    assert path.read_bytes() == content


@pytest.mark.parametrize(("old", "new"), [('"llava"', '"lava"'), ('"llava"', "3"), (', "code": "0.1.0"', "")])
def test_a_header_that_was_changed_by_hand_is_named(tmp_path: Path, old: str, new: str) -> None:
    path = write(tmp_path, ANSWERS)
    path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=r"base\.jsonl line 1"):
        read_answers(tmp_path, "base")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with AnswerWriter(tmp_path, "base", ARM) as writer:
        writer.add(ANSWERS[0])
        with pytest.raises(ValueError, match="another run writes"):
            AnswerWriter(tmp_path, "base", ARM)
    assert list(read_answers(tmp_path, "base")) == ANSWERS[:1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_leaves_whole_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullAfterAWhile:
        """Takes a few bytes of a line, and then no more."""

        def __init__(self, file: object) -> None:
            self.file, self.calls = file, 0

        def write(self, content: bytes) -> int:
            self.calls += 1
            if self.calls > 1:
                raise OSError(28, "No space left on device")
            return self.file.write(bytes(content)[:10])

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with AnswerWriter(tmp_path, "base", ARM) as writer:
        writer.add(ANSWERS[0])
        content = writer.path.read_bytes()
        monkeypatch.setattr(writer, "_file", FullAfterAWhile(writer._file))
        with pytest.raises(OSError, match="No space"):
            writer.add(ANSWERS[1])
        assert writer.path.read_bytes() == content
        assert ANSWERS[1].id not in writer.done


def test_an_arm_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, ANSWERS[:1], name="vhr")
    with pytest.raises(ValueError, match="no answers of 'base'; it has vhr"):
        read_answers(tmp_path, "base")


def test_half_a_letter_is_kept(tmp_path: Path) -> None:
    broken = replace(ANSWERS[0], text="\ud83d")
    write(tmp_path, [broken])
    assert list(read_answers(tmp_path, "base")) == [broken]


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with AnswerWriter(tmp_path, "base", ARM) as writer:
        with pytest.raises(ValueError, match="JSON"):
            writer.add(replace(ANSWERS[0], activity=[{"moved": float("nan")}]))
    assert list(read_answers(tmp_path, "base")) == []


READER = """
import sys, tracemalloc
from pathlib import Path
from regard.mllm.evaluation.answer_files import read_answers
answers = read_answers(Path(sys.argv[1]), "base")
tracemalloc.start()
print(sum(1 for _ in answers), tracemalloc.get_traced_memory()[1])
"""


def test_a_hundred_thousand_answers_are_read_in_little_memory(tmp_path: Path) -> None:
    text = "A cat sits on a mat beside a dog. " * 10
    header = write(tmp_path, [])
    with header.open("a", encoding="utf-8") as file:
        rest = {"text": text, "tokens": 90, "at_limit": False, "activity": []}
        for index in range(100_000):
            file.write(json.dumps({"id": str(index), **rest}) + "\n")
    command = [sys.executable, "-W", "ignore", "-c", READER, str(tmp_path)]
    paths = str(Path(regard.__file__).parents[1])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=True, text=True)
    count, peak = map(int, done.stdout.split())
    assert count == 100_000
    assert peak < 20e6 < header.stat().st_size / 2  # the ids, and one answer at a time


def test_activity_is_told_in_few_numbers() -> None:
    whole = torch.tensor([[0, 3]])
    shares = torch.tensor([[0.0, 1.5]])
    done = Activity(
        intervention="vhr",
        rows=whole,
        heads=2 * whole,
        moved=shares,
        to_image=-shares,
        change=shares,
        token_change=torch.tensor([torch.inf]),
    )
    expected = {"intervention": "vhr", "rows": 3, "heads": 6, "moved": 1.5, "to_image": -1.5, "change": 1.5}
    assert activity_summary([done]) == [{**expected, "token_change": None}]
