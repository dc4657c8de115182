from __future__ import annotations

from pathlib import Path

import pytest
from worker_tasks import touch_or_fail

from regard.tools.run.shards import parse_shard, part_of
from regard.tools.run.workers import run_tasks


def test_a_task_that_fails_or_is_killed_does_not_stop_the_others(tmp_path: Path) -> None:
    tasks = {name: (str(tmp_path), name, name) for name in ("first", "refused", "killed", "last")}
    failed = run_tasks(touch_or_fail, tasks, workers=2)
    assert failed == {
        "refused": "refused is wrong",
        "killed": "its process ended with signal 9 (not enough memory?)",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "last"]


def test_shards_have_every_item_once() -> None:
    items = list(range(11))
    parts = [part_of(items, parse_shard(f"{number}/3")) for number in (1, 2, 3)]
    assert sorted(item for part in parts for item in part) == items


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/2/3", "a/b", ""])
def test_another_form_of_a_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give I/N with I from 1 to N"):
        parse_shard(text)
