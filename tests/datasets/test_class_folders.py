from pathlib import Path

import pytest
from PIL import Image

from regard.datasets.class_folders import open_class_folders


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / name)


def test_class_folders_in_train_val_and_test_are_splits(tmp_path: Path) -> None:
    put(tmp_path, "train/dog/1.png", "train/cat/2.jpg", "train/cat/1.png", "val/cat/1.png", "test/dog/1.png")
    found = open_class_folders(tmp_path)
    assert found["train"].classes == ["cat", "dog"]
    assert [Path(path).name for path in found["train"].images] == ["1.png", "2.jpg", "1.png"]
    assert {split: images.targets.tolist() for split, images in found.items()} == {
        "train": [0, 0, 1],
        "val": [0],
        "test": [1],
    }


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_the_validation_folder_has_several_names(tmp_path: Path, name: str) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", f"{name}/cat/1.png")
    assert len(open_class_folders(tmp_path)["val"]) == 1


def test_class_folders_alone_are_one_set(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png")
    assert list(open_class_folders(tmp_path)) == ["train"]


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/.2.png", "cat/deep/3.PNG", "cat/.cache/4.png", "dog/1.png", ".git/1.png")
    (tmp_path / "cat" / "notes.txt").write_text("none")
    (tmp_path / "readme.png").write_text("a file among the class folders")
    found = open_class_folders(tmp_path)["train"]
    assert [Path(path).name for path in found.images] == ["1.png", "3.PNG", "1.png"]


def test_a_loop_of_links_is_walked_once(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert len(open_class_folders(tmp_path)["train"]) == 2


def test_a_linked_class_folder_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "store/1.png", "set/cat/1.png")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store", target_is_directory=True)
    assert open_class_folders(tmp_path / "set")["train"].classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("files", "folders", "complaint"),
    [
        ([], [], "no class folders"),
        (["1.png"], [], "no class folders"),
        ([], ["cat", "dog"], "no folder in .* has an image; looked into classes 'cat', 'dog'"),
        (["cat/1.png", "dog/1.png"], ["owl"], "no image in .* of class 'owl'"),
        (["cat/1.png"], [], "one class only, 'cat'"),
        (["val/cat/1.png"], [], "no folder 'train'"),
        (["train/cat/1.png", "train/dog/1.png", "val/owl/1.png"], [], "has class 'owl', which"),
        (["train/cat/1.png", "train/dog/1.png"], ["val/cat"], "val has no images"),
        (
            ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "valid/cat/1.png"],
            [],
            "are both the split 'val'",
        ),
    ],
)
def test_a_folder_that_is_no_set_is_explained(
    tmp_path: Path, files: list[str], folders: list[str], complaint: str
) -> None:
    put(tmp_path, *files)
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=complaint):
        open_class_folders(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        open_class_folders(tmp_path / "nowhere")
