from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regard.datasets.bags.slide_table import read_slide_table


def read(folder: Path, text: str, **options: Any) -> list[Any]:
    (folder / "slides.csv").write_text(text)
    return read_slide_table(folder / "slides.csv", **options)


def test_the_table_of_clam_is_read(tmp_path: Path) -> None:
    rows = read(tmp_path, "\ufeffcase_id,slide_id,label\np0,s0.svs,tumour\n\n,s1,normal\n")
    assert [(row.line, row.slide, row.patient, row.label) for row in rows] == [
        (2, "s0", "p0", "tumour"),
        (4, "s1", "s1", "normal"),
    ]


def test_another_column_of_labels_can_be_chosen(tmp_path: Path) -> None:
    rows = read(tmp_path, "slide_id,grade,label\ns0,high,x\n", label="grade")
    assert rows[0].label == "high"
    assert rows[0].patient == "s0"


def test_times_and_events_are_read(tmp_path: Path) -> None:
    rows = read(tmp_path, "slide_id,time,event\na,3.5,1\nb,0,False\n", task="survival")
    assert [(row.time, row.event, row.label) for row in rows] == [(3.5, True, None), (0.0, False, None)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("slide,label\na,x\n", "lacks the column 'slide_id', it has slide, label"),
        ("slide_id,grade\na,x\n", "lacks the column 'label'.*label=NAME"),
        ("slide_id,label\na,\n", "line 2: slide a has no label"),
        ("slide_id,label\na,x\nb,y\na.svs,x\n", "line 4: slide a is in line 2 already"),
        ("slide_id,label\n,x\n", "line 2 has no slide_id"),
        ("slide_id,label\n../x,x\n", r"line 2: the slide_id '\.\./x' is a path"),
        ("slide_id,label\n/etc/x,x\n", "is a path"),
        ("slide_id,label\n..,x\n", "is a path"),
        ("slide_id,label\nC:\\x,x\n", "is a path"),
        ("slide_id,label\na,x,y\n", "line 2 has 3 values for 2 columns"),
        ("slide_id,label\n", "lists no slides"),
        ("slide_id,label,label\na,x,y\n", "column 'label' twice"),
        ("", "lacks the column"),
    ],
)
def test_a_bad_table_is_explained_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"slides\.csv.*{complaint}"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("slide_id,label\na,x\n", "lacks the column 'time' and 'event'"),
        ("slide_id,time,censorship\na,1,0\n", "event is 1 - censorship"),
        ("slide_id,time,event\na,1,2\n", "line 2, slide a: event is '2'; expected 1"),
        ("slide_id,time,event\na,,1\n", "line 2, slide a: time is ''"),
        ("slide_id,time,event\na,-1,1\n", "time is '-1'"),
        ("slide_id,time,event\na,inf,1\n", "time is 'inf'"),
    ],
)
def test_bad_survival_is_explained_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"slides\.csv.*{complaint}"):
        read(tmp_path, text, task="survival")


def test_a_missing_or_binary_table_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no table .*none\.csv"):
        read_slide_table(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"slide_id,label\n\xff\xfe,x\n")
    with pytest.raises(ValueError, match="not a CSV table in UTF-8"):
        read_slide_table(tmp_path / "a.csv")
