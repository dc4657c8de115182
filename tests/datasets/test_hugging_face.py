import builtins
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.datasets.hugging_face import hugging_face_library, open_hugging_face, open_saved_set
from regard.datasets.image_reading import UnreadableImageError
from regard.datasets.sources import open_images

try:
    library: Any = hugging_face_library()
except ImportError:
    library = None
needs_library = pytest.mark.skipif(library is None, reason='needs pip install "regard[huggingface]"')


def photos(count: int = 4) -> list[Image.Image]:
    return [Image.new("RGB", (5, 4), (index, 0, 0)) for index in range(count)]


def features(**more: Any) -> Any:
    return library.Features({"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"]), **more})


def table(columns: dict[str, Any], types: Any) -> Any:
    return library.Dataset.from_dict(columns, features=types)


@needs_library
def test_a_saved_dictionary_of_splits_is_opened(tmp_path: Path) -> None:
    part = table({"image": photos(), "label": [0, 1, 1, 0]}, features())
    library.DatasetDict({"train": part, "validation": part, "unsupervised": part}).save_to_disk(str(tmp_path))
    found = open_saved_set(tmp_path)
    assert list(found) == ["train", "val"]
    assert (found["train"].classes, found["train"].targets.tolist()) == (["cat", "dog"], [0, 1, 1, 0])
    assert found["train"][3][0].getpixel((0, 0)) == (3, 0, 0)


@needs_library
def test_a_saved_set_is_recognised(tmp_path: Path) -> None:
    table({"image": photos(40), "label": [0, 1] * 20}, features()).save_to_disk(str(tmp_path))
    assert {split: len(part) for split, part in open_images(tmp_path).items()} == {
        "train": 32,
        "val": 4,
        "test": 4,
    }
    assert len(open_hugging_face(str(tmp_path))["train"]) == 40


@needs_library
def test_a_list_of_classes_makes_several_labels(tmp_path: Path) -> None:
    types = library.Features(
        {"photo": library.Image(), "objects": library.Sequence(library.ClassLabel(names=["cat", "dog"]))}
    )
    table({"photo": photos(3), "objects": [[0, 1], [], [1]]}, types).save_to_disk(str(tmp_path))
    train = open_saved_set(tmp_path)["train"]
    assert train.multi_label
    np.testing.assert_array_equal(train.targets, [[1, 1], [0, 0], [0, 1]])


@needs_library
def test_of_several_label_columns_one_is_chosen(tmp_path: Path) -> None:
    types = library.Features({"img": library.Image(), **dict.fromkeys(("fine", "coarse"), library.ClassLabel(2))})
    table({"img": photos(2), "fine": [0, 1], "coarse": [1, 1]}, types).save_to_disk(str(tmp_path))
    with pytest.raises(ValueError, match="choose one with label=NAME: fine, coarse"):
        open_saved_set(tmp_path)
    assert open_hugging_face(f"{tmp_path}:label=coarse")["train"].targets.tolist() == [1, 1]
    with pytest.raises(ValueError, match="no label column 'fin'; it has fine, coarse"):
        open_hugging_face(f"{tmp_path}:label=fin")


@needs_library
def test_columns_of_other_types_are_explained(tmp_path: Path) -> None:
    library.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(str(tmp_path))
    with pytest.raises(ValueError, match="no column of the type Image; it has text: Value, label: Value"):
        open_saved_set(tmp_path)


@needs_library
def test_a_split_with_hidden_labels_is_left_out(tmp_path: Path) -> None:
    train = table({"image": photos(2), "label": [0, 1]}, features())
    test = table({"image": photos(2), "label": [-1, -1]}, features())
    library.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path))
    assert list(open_saved_set(tmp_path)) == ["train"]


@needs_library
def test_an_image_that_is_damaged_is_named(tmp_path: Path) -> None:
    encoded = [{"bytes": b"nothing", "path": None}]
    table({"image": encoded, "label": [0]}, features()).save_to_disk(str(tmp_path))
    with pytest.raises(UnreadableImageError, match=r"train\[0\].*not an image"):
        open_saved_set(tmp_path)["train"].image(0)


@needs_library
def test_a_folder_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match=f"{tmp_path} is not a set"):
        open_saved_set(tmp_path)


def test_the_message_of_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> ModuleType:
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
        return real(name, *rest)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ImportError, match=r'pip install "regard\[huggingface\]"'):
        hugging_face_library()


def test_another_module_called_datasets_is_not_mistaken_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", ModuleType("datasets"))
    with pytest.raises(ImportError, match=r"not found \(<module 'datasets'"):
        hugging_face_library()
