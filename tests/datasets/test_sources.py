import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.datasets import open_images


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / name)
    return folder


def files(split: str, count: int) -> list[str]:
    return [f"{split}{label}/{index}.png" for label in ("cat", "dog") for index in range(count)]


def test_importing_the_room_loads_no_torch() -> None:
    code = "import sys, regard.datasets; print(*{'torch', 'numpy', 'lightning', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_everything_in_all_can_be_had() -> None:
    import regard.datasets as room

    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = room.nothing


def test_unsplit_images_are_split_in_three(tmp_path: Path) -> None:
    parts = open_images(put(tmp_path, *files("", 10)), val_fraction=0.2)
    assert {split: len(part) for split, part in parts.items()} == {"train": 14, "val": 4, "test": 2}
    names = [part.name(index) for part in parts.values() for index in range(len(part))]
    assert len(set(names)) == 20
    assert all(np.bincount(part.targets).tolist() == [len(part) // 2] * 2 for part in parts.values())


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    put(tmp_path, *files("", 10))
    first, again, other = (open_images(tmp_path, seed=seed)["val"].images.indices.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_missing_val_is_split_off_train(tmp_path: Path) -> None:
    parts = open_images(put(tmp_path, *files("train/", 10), *files("test/", 2)))
    assert {split: len(part) for split, part in parts.items()} == {"train": 18, "val": 2, "test": 4}
    assert "seed 0" in parts["val"].origin


def test_a_missing_test_is_val_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        parts = open_images(put(tmp_path, *files("train/", 10), *files("val/", 2)))
    assert parts["test"] is parts["val"]
    assert len(parts["train"]) == 20
    assert "'test' is 'val'" in caplog.text


def test_a_missing_test_is_split_off_train_if_asked_for(tmp_path: Path) -> None:
    parts = open_images(put(tmp_path, *files("train/", 10), *files("val/", 2)), test_fraction=0.2)
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "val": 4, "test": 4}


def test_mnist_files_and_tables_are_recognised(tmp_path: Path) -> None:
    table = put(tmp_path / "table", "1.png", "2.png", "3.png", "4.png", "5.png", "6.png")
    (table / "labels.csv").write_text("path,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(1, 7)))
    assert open_images(table)["train"].classes == ["0", "1"]
    assert open_images(table / "labels.csv")["train"].classes == ["0", "1"]
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    )
    with pytest.raises(ValueError, match="lacks train-labels-idx1-ubyte"):
        open_images(tmp_path / "idx")


def test_a_source_may_have_options() -> None:
    parts = open_images("torchvision:FakeData:size=40,image_size=(1, 4, 4),num_classes=2")
    assert sum(map(len, parts.values())) == 40


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("digit", "neither a source nor a folder; did you mean 'digits'"),
        ("no/such/folder", "neither a source nor a folder"),
        ("digits:3", "cannot open 'digits:3'; expected digits, scenes, torchvision:NAME"),
        ("torchvision", "cannot open 'torchvision'"),
        ("hf:", "cannot open 'hf:'"),
    ],
)
def test_an_unknown_name_is_explained(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_images(name)


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is empty; expected class folders"):
        open_images(tmp_path)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match=r"holds notes\.txt; expected class folders"):
        open_images(tmp_path)
    with pytest.raises(ValueError, match="is a file, but not a CSV table"):
        open_images(tmp_path / "notes.txt")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_fraction_out_of_range_is_named(tmp_path: Path, fraction: float) -> None:
    put(tmp_path, *files("", 4))
    with pytest.raises(ValueError, match=f"val_fraction is {fraction}"):
        open_images(tmp_path, val_fraction=fraction)
