from __future__ import annotations

import csv
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from jobs import run, start
from slide_drill import BAD, GOOD, fork, results, tissue, write_models, write_slides

from regard.datasets.bags import open_bags
from regard.datasets.slides.writing import write_slide
from regard.tools.slides.result import read_results

pytestmark = [
    pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="copies of this process need fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slides/, good and bad, encoder/ and heads/."""
    folder = tmp_path_factory.mktemp("drill")
    write_slides(folder / "slides")
    return folder


@pytest.fixture(scope="module")
def words(drill: Path) -> list[str]:
    return [str(drill / "slides"), *write_models(drill)]


@pytest.fixture(scope="module")
def undisturbed(drill: Path, words: list[str]) -> Path:
    """A run that nothing happened to."""
    assert run("slide", *words, "--out", drill / "undisturbed") == 1  # there are bad slides
    return drill / "undisturbed"


def test_good_slides_are_done_and_every_bad_one_has_a_reason(undisturbed: Path) -> None:
    found = {result.id: result for result in read_results(undisturbed)}
    assert set(found) == {*GOOD, *BAD, "one bad tile"}
    for name in GOOD:
        assert found[name].status == "done"
        assert found[name].patches > 50
        assert found[name].label in ("normal", "tumour")
        assert sum(found[name].probabilities.values()) == pytest.approx(1)
    for name, reason in BAD.items():
        assert found[name].status in ("failed", "empty")
        assert found[name].reason
        assert reason in found[name].reason
    assert found["one bad tile"].status == "done"
    assert 0 < found["one bad tile"].damaged < 10
    assert "cannot be read" in found["one bad tile"].warnings[0]


def test_the_summary_has_every_slide(undisturbed: Path) -> None:
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert summary["counts"] == {"done": 4, "empty": 1, "failed": 4}
    with (undisturbed / "summary.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert rows["one"]["status"] == "done"
    assert 0 < float(rows["one"]["prob_tumour"]) < 1
    assert float(rows["one"]["spread_tumour"]) >= 0
    assert rows["text"]["reason"]
    assert all(name in (undisturbed / "report.html").read_text() for name in ("one bad tile", "truncated"))


def test_a_second_run_does_nothing_again(undisturbed: Path, words: list[str]) -> None:
    files = [
        *undisturbed.glob("features_*/h5_files/*"),
        *undisturbed.glob("heatmaps/*"),
        *undisturbed.glob("patches/*"),
    ]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert run("slide", *words, "--out", undisturbed) == 1
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_features_train_heads(undisturbed: Path, tmp_path: Path) -> None:
    [features] = undisturbed.glob("features_*")
    table = tmp_path / "slides.csv"
    table.write_text("slide_id,case_id,label\n" + "".join(f"{name},{name},{i % 2}\n" for i, name in enumerate(GOOD)))
    bags = open_bags(str(features), table=str(table))
    assert len(bags) == 3
    assert bags.width == 24
    assert torch.isfinite(bags.features(0)).all()
    assert bags.coordinates(0).shape == (bags.size(0), 2)


def test_a_run_that_is_killed_ten_times_ends_with_the_same_results(
    undisturbed: Path, words: list[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(10):
        process = fork("slide", *words, "--out", tmp_path / "out")
        process.join(rng.uniform(0.05, 1.0))
        kills += process.is_alive()
        process.kill()
        process.join()
    assert kills >= 5
    assert run("slide", *words, "--out", tmp_path / "out") == 1
    assert results(tmp_path / "out") == results(undisturbed)
    left = [path.name for path in (tmp_path / "out").rglob("*.partial*") if not path.match("pages/*")]
    assert not left


def test_two_runs_at_once_on_one_folder_give_the_results_of_one(
    undisturbed: Path, words: list[str], tmp_path: Path
) -> None:
    both = [fork("slide", *words, "--out", tmp_path / "out") for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [1, 1]
    assert results(tmp_path / "out") == results(undisturbed)


def test_a_full_disk_stops_the_run_and_loses_nothing(undisturbed: Path, words: list[str], tmp_path: Path) -> None:
    def nearly_full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))  # larger files are refused, as on a full disk

    process = fork("slide", *words, "--out", tmp_path / "out", before=nearly_full)
    process.join()
    assert process.exitcode == 1
    assert not list((tmp_path / "out").glob("features_*/h5_files/*"))
    assert run("slide", *words, "--out", tmp_path / "out") == 1
    assert results(tmp_path / "out") == results(undisturbed)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder here that nobody can write to")
def test_a_folder_that_cannot_be_written_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("slide", *words, "--out", "/sys/kernel/regard") == 2
    assert "/sys/kernel/regard" in capsys.readouterr().err


@pytest.mark.full  # three processes start afresh; test_workers has the pool, the test of shards the results
def test_several_processes_give_the_results_of_one(undisturbed: Path, words: list[str], tmp_path: Path) -> None:
    process = start(["slide", *words, "--out", tmp_path / "out", "--workers", "2"])
    _, stderr = process.communicate()
    assert process.returncode == 1, stderr
    assert results(tmp_path / "out") == results(undisturbed)


def test_shards_give_the_results_of_one_run(undisturbed: Path, words: list[str], tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        run("slide", *words, "--out", tmp_path / "out", "--shard", shard)
    assert results(tmp_path / "out") == results(undisturbed)
    assert (tmp_path / "out" / "summary.csv").read_bytes() == (undisturbed / "summary.csv").read_bytes()


def test_features_that_were_cut_off_are_made_again(undisturbed: Path, words: list[str]) -> None:
    [file] = undisturbed.glob("features_*/h5_files/one.h5")
    before = results(undisturbed)
    file.write_bytes(file.read_bytes()[:-3000])
    (undisturbed / "heatmaps" / "two_absolute.png").write_bytes(b"half an image")
    assert run("slide", *words, "--out", undisturbed) == 1
    assert results(undisturbed) == before


def test_a_slide_that_has_changed_is_worked_on_again(drill: Path, words: list[str], tmp_path: Path) -> None:
    slide = tmp_path / "slides" / "one.svs"
    slide.parent.mkdir()
    own = {"mpp": 0.5, "levels": (1, 4), "tile": 64}
    write_slide(slide, tissue(0), **own)
    given = [tmp_path / "slides", *words[1:], "--out", tmp_path / "out", "--stages", "features"]
    assert run("slide", *given) == 0
    before = results(tmp_path / "out", ("one",))
    write_slide(slide, tissue(3), **own)
    assert run("slide", *given) == 0
    assert results(tmp_path / "out", ("one",)) != before


def test_tissue_that_was_edited_is_used_as_it_is(drill: Path, words: list[str], tmp_path: Path) -> None:
    given = [drill / "slides" / "one.svs", *words[1:], "--out", tmp_path, "--stages", "grid"]
    assert run("slide", *given) == 0
    [before] = read_results(tmp_path)
    file = tmp_path / "tissue" / "one.geojson"
    square = json.loads(shapely.to_geojson(shapely.box(256, 256, 384, 384)))
    file.write_text(json.dumps({"type": "Feature", "geometry": square, "properties": {}}))
    drawn = file.read_bytes()
    assert run("slide", *given) == 0
    [after] = read_results(tmp_path)
    assert before.patches > after.patches == 16
    assert "edited by hand" in after.warnings[0]
    assert file.read_bytes() == drawn


def test_annotations_leave_regions_out(drill: Path, words: list[str], tmp_path: Path) -> None:
    given = [drill / "slides" / "one.svs", *words[1:], "--stages", "grid"]
    assert run("slide", *given, "--out", tmp_path / "whole") == 0
    half = json.loads(shapely.to_geojson(shapely.box(0, 0, 320, 640)))
    region = {"type": "Feature", "geometry": half, "properties": {"classification": {"name": "Exclude"}}}
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "one.geojson").write_text(json.dumps(region))
    assert run("slide", *given, "--out", tmp_path / "half", "--annotations", tmp_path / "regions") == 0
    [whole], [part] = read_results(tmp_path / "whole"), read_results(tmp_path / "half")
    assert part.patches == pytest.approx(whole.patches / 2, rel=0.2)


def test_microns_that_a_slide_does_not_tell_come_from_a_flag_or_a_table(
    drill: Path, words: list[str], tmp_path: Path
) -> None:
    given = [drill / "slides" / "unscaled.tif", *words[1:], "--stages", "grid"]
    assert run("slide", *given, "--out", tmp_path / "flag", "--slide_mpp", "0.25") == 0
    table = tmp_path / "mpp.csv"
    table.write_text("slide,mpp\nunscaled,0.5\n")
    assert run("slide", *given, "--out", tmp_path / "table", "--slide_mpp", "0.25", "--table", table) == 0
    [flag], [tabled] = read_results(tmp_path / "flag"), read_results(tmp_path / "table")
    assert (flag.mpp, tabled.mpp) == (0.25, 0.5)
    assert tabled.patches > 2 * flag.patches


def test_files_of_one_name_get_names_of_their_own(drill: Path, words: list[str], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_slide(tmp_path / folder / "same.svs", tissue(0, 256), mpp=0.5, levels=(1,), tile=64)
    assert run("slide", tmp_path / "a", tmp_path / "b", *words[1:], "--out", tmp_path / "out", "--stages", "grid") == 0
    assert {result.id for result in read_results(tmp_path / "out")} == {"a-same.svs", "b-same.svs"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--stages", "tisue"], "did you mean 'tissue'"),
        (["--mpp", "50000"], "--mpp is 50000.0; give 0.01 to 100"),
        (["--overlap", "1"], "--overlap is 1.0"),
        (["--head", "nowhere"], "--head nowhere does not exist"),
        (["--encoder", "unni"], "did you mean"),
        (["--device", "cuda:77"], "--device is 'cuda:77'"),
        (["--shard", "3/2"], "--shard is '3/2'"),
        (["--engine", "ray", "--workers", "2"], "--workers are processes of --engine local"),
        (["--table", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--annotations", "nowhere"], "there is no file or folder nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_setting_ends_with_2_and_is_named(
    wrong: list[str], message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("slide", *words, "--out", tmp_path / "out", *wrong) == 2
    assert message in capsys.readouterr().err


def test_an_empty_folder_and_other_settings_are_refused(
    undisturbed: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("slide", tmp_path, *words[1:], "--out", tmp_path / "out") == 2
    assert "no slide is in" in capsys.readouterr().err
    assert run("slide", *words, "--out", undisturbed, "--overlap", "0.5") == 2
    assert "overlap: 0.0 there, 0.5 here" in capsys.readouterr().err
    assert run("slide", *words, "--out", Path(sys.executable)) == 2
    assert "is a file" in capsys.readouterr().err
