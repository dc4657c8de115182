import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from regard.datasets.idx import open_idx_folder, read_idx


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape) + values.tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 1, 7], dtype=np.uint8)


def write(folder: Path, stem: str = "train", images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> Path:
    (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_images_and_labels_are_read(tmp_path: Path) -> None:
    write(tmp_path)
    train = open_idx_folder(write(tmp_path, "t10k"))["train"]
    assert (train.classes, train.targets.tolist(), train.channels) == (["1", "7"], [1, 0, 1], 1)
    np.testing.assert_array_equal(np.asarray(train[2][0]), IMAGES[2])


def test_a_raw_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    values = read_idx(write(tmp_path) / "train-images-idx3-ubyte")
    assert isinstance(values.base, np.memmap)


def test_names_with_a_dot_and_gzip_are_found(tmp_path: Path) -> None:
    (tmp_path / "train-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx(LABELS))
    train = open_idx_folder(tmp_path)["train"]
    np.testing.assert_array_equal(np.asarray(train[1][0]), IMAGES[1])


def test_colour_images_have_three_channels(tmp_path: Path) -> None:
    images = np.repeat(IMAGES[..., None], 3, axis=-1)
    assert open_idx_folder(write(tmp_path, images=images))["train"][0][0].mode == "RGB"


def test_a_pickled_set_carries_no_pixels(tmp_path: Path) -> None:
    write(tmp_path, images=np.zeros((100, 28, 28), np.uint8), labels=np.arange(100, dtype=np.uint8) % 2)
    packed = pickle.dumps(open_idx_folder(tmp_path)["train"])
    assert len(packed) < 5000
    assert pickle.loads(packed)[99][1] == 1


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "starts with nothing"),
        (b"\x89PNG", "is not an IDX file"),
        (b"\0\0\x08", "is not an IDX file"),
        (b"\0\0\x08\x03\0\0", "ends within its head"),
        (idx(IMAGES)[:-1], "truncated or damaged: its header gives 3 x 4 x 5"),
        (idx(IMAGES) + b"\0", "truncated or damaged"),
        (idx(IMAGES.astype(">f4"), kind=0x0D), "IDX type 0x0d"),
    ],
    ids=["empty", "png", "three", "head", "cut", "longer", "floats"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["raw", "gz"])
def test_a_damaged_file_is_explained(tmp_path: Path, data: bytes, complaint: str, suffix: str) -> None:
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    with pytest.raises(ValueError, match=complaint):
        read_idx(path)


@pytest.mark.parametrize(
    "data",
    [b"no gzip", gzip.compress(idx(IMAGES))[:-9], gzip.compress(idx(IMAGES))[:20], b""],
    ids=["text", "cut", "short", "empty"],
)
def test_a_bad_gzip_file_is_explained(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"images\.gz"):
        read_idx(path)


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (IMAGES, LABELS[:2], "3 images but .* 2 labels"),
        (IMAGES[0], LABELS, "expected images x height x width"),
        (IMAGES, IMAGES, "expected one label an image"),
        (IMAGES[:0], LABELS[:0], "has no images"),
    ],
)
def test_files_that_do_not_fit_each_other_are_explained(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_idx_folder(write(tmp_path, images=images, labels=labels))


def test_a_test_label_that_is_new_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match="label 5"):
        open_idx_folder(write(tmp_path, "t10k", labels=np.array([1, 5, 7], np.uint8)))


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write(write(tmp_path), "t10k")
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        open_idx_folder(tmp_path)
