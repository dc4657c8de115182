"""Folders as CLAM, TRIDENT and ACMIL write them, with their tables."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from regard.datasets.bags import open_bags

RNG = np.random.default_rng(0)
TABLE = "case_id,slide_id,label\np0,s0,tumour\np0,s1.svs,normal\np1,s2,tumour\n"


def slide(path: Path, count: int = 6, width: int = 8) -> np.ndarray:
    """A slide as TRIDENT or CLAM write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.standard_normal((count, width)).astype(np.float32)
    if path.suffix == ".pt":
        torch.save(torch.from_numpy(values), path)
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        with h5py.File(path, "w") as file:
            rows = (1, width) if count else None
            features = file.create_dataset(
                "features", data=values, chunks=rows, maxshape=(None, width) if rows else None
            )
            features.attrs["encoder"] = "uni_v1"
            coords = file.create_dataset("coords", data=np.arange(2 * count).reshape(count, 2))
            coords.attrs["patch_size_level0"] = 512
    return values


def table(folder: Path, text: str = TABLE) -> str:
    path = folder / "slides.csv"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "files",
    [
        "h5_files/{}.h5",
        "pt_files/{}.pt",
        "{}.h5",
        "{}.pt",
        "{}.npy",
        "features_uni_v1/{}.h5",
        "20x_256px_0px_overlap/features_uni_v1/{}.h5",
        "tcga/pt_files/{}.pt",
    ],
)
def test_every_layout_is_found(tmp_path: Path, files: str) -> None:
    folder = tmp_path / "features"
    values = [slide(folder / files.format(f"s{index}"), index + 1) for index in range(3)]
    slide(folder / files.format(".s9.h5"))
    bags = open_bags(str(folder), table=table(tmp_path))
    assert [bag.id for bag in bags.bags] == ["s0", "s1", "s2"]
    assert [bag.patient for bag in bags.bags] == ["p0", "p0", "p1"]
    assert [bag.label for bag in bags.bags] == [1, 0, 1]
    assert bags.classes == ["normal", "tumour"]
    assert bags.width == 8
    for index, wanted in enumerate(values):
        assert bags.size(index) == index + 1
        np.testing.assert_array_equal(bags.features(index).numpy(), wanted)
    coordinates = bags.coordinates(1)
    assert (coordinates is None) == (not files.endswith("h5"))
    if coordinates is not None:
        assert coordinates.tolist() == [[0, 1], [2, 3]]
    assert bags.instance_labels(0) is None


def test_of_two_files_of_a_slide_the_one_with_coordinates_is_taken(tmp_path: Path) -> None:
    values = slide(tmp_path / "h5_files/s0.h5")
    slide(tmp_path / "pt_files/s0.pt")
    slide(tmp_path / "pt_files/s1.pt")
    bags = open_bags(tmp_path)
    assert [bag.id for bag in bags.bags] == ["s0", "s1"]
    np.testing.assert_array_equal(bags.features(0).numpy(), values)
    assert bags.coordinates(0) is not None


def test_one_file_of_all_slides_comes_with_its_labels(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "patch_feats_pretrain_uni.h5", "w") as file:
        for name, label in (("b", 10), ("a", 9)):
            group = file.create_group(name)
            group["feat"] = RNG.standard_normal((4, 8)).astype(np.float16)
            group["coords"] = np.zeros((4, 2), np.int64)
            group.attrs["label"] = label
    for source in (tmp_path, tmp_path / "patch_feats_pretrain_uni.h5"):
        bags = open_bags(source)
        assert bags.classes == ["9", "10"]
        assert [(bag.id, bag.label) for bag in bags.bags] == [("a", 0), ("b", 1)]
        assert bags.features(0).dtype == torch.float16
    bags = open_bags(tmp_path, table=table(tmp_path, "slide_id,label\na,x\nb,y\n"), classes=["y", "x"])
    assert [bag.label for bag in bags.bags] == [1, 0]


def test_a_file_of_all_slides_with_half_of_the_labels_is_explained(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name in ("a", "b"):
            file[f"{name}/feat"] = np.ones((2, 8), np.float32)
        file["a"].attrs["label"] = 1
    with pytest.raises(ValueError, match=r"slide b in .* has no label"):
        open_bags(tmp_path)


def test_survival_has_times_and_events(tmp_path: Path) -> None:
    slide(tmp_path / "s0.h5")
    slide(tmp_path / "s1.h5")
    text = table(tmp_path, "slide_id,case_id,time,event\ns0,p,12.5,1\ns1,q,30,0\n")
    bags = open_bags(tmp_path, table=text, task="survival")
    assert [(bag.time, bag.event, bag.label) for bag in bags.bags] == [(12.5, True, None), (30.0, False, None)]
    assert bags.classes == []
    with pytest.raises(ValueError, match="give a table with the columns slide_id, time and event"):
        open_bags(tmp_path, task="survival")


def test_without_a_table_slides_have_no_labels_and_empty_ones_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slide(tmp_path / "s0.h5")
    slide(tmp_path / "s1.h5", count=0)
    with caplog.at_level(logging.WARNING):
        bags = open_bags(tmp_path)
    assert [(bag.id, bag.label) for bag in bags.bags] == [("s0", None)]
    assert "1 slide (s1) without instances: skipped" in caplog.text


def test_a_bag_of_one_instance_is_a_bag(tmp_path: Path) -> None:
    slide(tmp_path / "s0.h5", count=1)
    assert open_bags(tmp_path).features(0).shape == (1, 8)


def test_bags_of_files_are_pickled_without_their_features(tmp_path: Path) -> None:
    values = slide(tmp_path / "s0.h5", count=500)
    packed = pickle.dumps(open_bags(tmp_path))
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed).features(0).numpy(), values)


def test_a_slide_of_the_table_without_features_is_named(tmp_path: Path) -> None:
    slide(tmp_path / "s0.h5")
    slide(tmp_path / "s01.h5")
    with pytest.raises(ValueError, match=r"2 slides \(s1, s2\) of .*slides\.csv without features in .*line 3"):
        open_bags(tmp_path, table=table(tmp_path))


def test_features_that_the_table_does_not_list_are_told_or_an_error_if_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(5):
        slide(tmp_path / f"s{index}.h5")
    with caplog.at_level(logging.WARNING):
        assert len(open_bags(tmp_path, table=table(tmp_path))) == 3
    assert "2 slides (s3, s4) with features in" in caplog.text
    with pytest.raises(ValueError, match=r"2 slides \(s3, s4\) with features in .* add them to the table"):
        open_bags(tmp_path, table=table(tmp_path), strict=True)


def test_an_empty_slide_of_the_table_is_named(tmp_path: Path) -> None:
    for index in range(3):
        slide(tmp_path / f"s{index}.h5", count=index)
    with pytest.raises(ValueError, match=r"slide s0: .*s0\.h5 holds no instances"):
        open_bags(tmp_path, table=table(tmp_path))


def test_another_width_is_named(tmp_path: Path) -> None:
    for index in range(3):
        slide(tmp_path / f"s{index}.h5", width=8 + (index == 2))
    with pytest.raises(ValueError, match=r"slide s2: .*s2\.h5 are 9 wide, but those of s0 in .* are 8"):
        open_bags(tmp_path, table=table(tmp_path))


def test_a_truncated_slide_is_named(tmp_path: Path) -> None:
    for index in range(3):
        slide(tmp_path / f"s{index}.h5")
    path = tmp_path / "s1.h5"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"slide s1: .*s1\.h5 is truncated"):
        open_bags(tmp_path, table=table(tmp_path))
    with pytest.raises(ValueError, match=r"slide s1: .*s1\.h5 is truncated"):
        open_bags(tmp_path)


def test_features_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    slide(tmp_path / "s0.h5")
    with h5py.File(tmp_path / "s0.h5", "a") as file:
        file["features"][4, 3] = np.nan
    with pytest.raises(ValueError, match=r"slide s0: 1 of 6 instances in .*s0\.h5 .*instance 4"):
        open_bags(tmp_path).features(0)


def test_coordinates_that_do_not_fit_are_named(tmp_path: Path) -> None:
    slide(tmp_path / "s0.h5")
    with h5py.File(tmp_path / "s0.h5", "a") as file:
        del file["coords"]
        file["coords"] = np.zeros((5, 2), int)
    with pytest.raises(ValueError, match=r"slide s0: .*s0\.h5 has coordinates of shape \(5, 2\) for 6"):
        open_bags(tmp_path).coordinates(0)


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    for index in range(3):
        slide(tmp_path / f"s{index}.h5")
    with pytest.raises(ValueError, match=r"slides\.csv line 3: slide s1 has the label 'normal', .* tumour, benign"):
        open_bags(tmp_path, table=table(tmp_path), classes=["tumour", "benign"])


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], []])
def test_classes_that_are_none_are_explained(tmp_path: Path, classes: list[str]) -> None:
    for index in range(3):
        slide(tmp_path / f"s{index}.h5")
    with pytest.raises(ValueError, match="two or more, each once"):
        open_bags(tmp_path, table=table(tmp_path), classes=classes)


def test_a_table_of_one_label_is_explained(tmp_path: Path) -> None:
    slide(tmp_path / "s0.h5")
    text = table(tmp_path, "slide_id,label\ns0,tumour\n")
    with pytest.raises(ValueError, match="one label only, 'tumour'"):
        open_bags(tmp_path, table=text)
    assert open_bags(tmp_path, table=text, classes=["normal", "tumour"]).bags[0].label == 1


def test_several_sets_of_features_are_named(tmp_path: Path) -> None:
    slide(tmp_path / "20x_256px_0px_overlap/features_uni_v1/s0.h5")
    slide(tmp_path / "20x_256px_0px_overlap/features_conch_v1/s0.h5")
    slide(tmp_path / "20x_256px_0px_overlap/slide_features_titan/s0.h5")
    with pytest.raises(ValueError, match=r"2 sets of features; give the path of one: .*conch_v1, .*uni_v1$"):
        open_bags(tmp_path)


def test_several_files_of_all_slides_are_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["a/feat"] = np.ones((2, 8), np.float32)
    with pytest.raises(ValueError, match=r"several files of many slides; .*one\.h5, .*two\.h5"):
        open_bags(tmp_path)


def test_sources_that_are_none_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'usb' is neither a set nor a folder; did you mean 'ucsb'"):
        open_bags("usb")
    with pytest.raises(ValueError, match="is empty; expected h5_files"):
        open_bags(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds notes\.txt; expected h5_files"):
        open_bags(tmp_path)
    with pytest.raises(ValueError, match=r"notes\.txt is a file, but not an H5 file"):
        open_bags(tmp_path / "notes.txt")
    slide(tmp_path / "s0.h5")
    with pytest.raises(ValueError, match=r"no groups with features.*give its folder"):
        open_bags(tmp_path / "s0.h5")
    with pytest.raises(ValueError, match="no task 'regression'"):
        open_bags("ucsb", task="regression")
    with pytest.raises(ValueError, match="musk1 has its own labels"):
        open_bags("musk1", classes=["a", "b"])


def test_importing_bags_loads_no_torch() -> None:
    check = "import regard.datasets.bags, sys; print([n for n in ('torch', 'h5py', 'numpy') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
