"""The output folder of a job: it belongs to one run, which one process at a time works on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from regard.tools.run.run_folder import open_run
from regard.tools.settings.resuming import EXTEND, FREE


@dataclass(frozen=True, kw_only=True)
class CountPatchesSettings:
    """Settings of a task of the tests."""

    out: str = field(metadata=FREE)
    side: int = 3
    seed: int = 7
    heads: list[str] = field(default_factory=lambda: ["mean"], metadata=EXTEND)
    workers: int = field(default=1, metadata=FREE)


@dataclass(frozen=True, kw_only=True)
class OtherTaskSettings:
    """Settings of another task."""

    out: str = field(metadata=FREE)


@pytest.fixture
def settings(tmp_path: Path) -> CountPatchesSettings:
    return CountPatchesSettings(out=str(tmp_path / "out"))


def finish(settings: CountPatchesSettings) -> None:
    with open_run(settings) as run:
        run.finish({"patches": 9})


def test_a_finished_run_keeps_its_summary_wherever_it_is_continued(settings: CountPatchesSettings) -> None:
    finish(settings)
    with open_run(replace(settings, workers=4)) as run:
        assert run.summary == {"patches": 9}
    record = json.loads((run.path / "run.json").read_text())
    assert (record["task"], record["seeds"]) == ("count patches", {"seed": 7})
    assert "regard" in record["versions"]


def test_what_extends_a_run_makes_it_unfinished(settings: CountPatchesSettings) -> None:
    finish(settings)
    with open_run(replace(settings, heads=["mean", "max"])) as run:
        assert run.summary is None


def test_other_settings_another_task_and_a_file_are_refused(settings: CountPatchesSettings, tmp_path: Path) -> None:
    finish(settings)
    with pytest.raises(ValueError, match="side: 3 there, 4 here"), open_run(replace(settings, side=4)):
        pass
    with pytest.raises(ValueError, match="holds a run of 'regard count patches'"):
        with open_run(OtherTaskSettings(out=settings.out)):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; give a folder"):
        with open_run(OtherTaskSettings(out=str(tmp_path / "file"))):
            pass


def test_settings_of_a_run_without_results_may_change(settings: CountPatchesSettings) -> None:
    with open_run(settings):
        pass
    with open_run(replace(settings, side=4)) as run:
        assert "side: 4" in (run.path / "settings.yaml").read_text()


def test_a_busy_folder_is_refused_but_not_to_further_processes_of_the_run(
    settings: CountPatchesSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(settings):
        with pytest.raises(ValueError, match="another process is active"), open_run(settings):
            pass
        monkeypatch.setenv("LOCAL_RANK", "1")
        with open_run(settings) as run:
            assert not run.first


def test_what_a_killed_process_left_is_removed(settings: CountPatchesSettings) -> None:
    with open_run(settings) as run:
        left = run.path / "runs" / ".model.0123456789ab.partial"
        left.mkdir(parents=True)
    with open_run(settings):
        assert not left.exists()
