from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.datasets.full_depth_image import read_full_depth_image
from regard.datasets.png_stream import write_png


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_was_written_is_read(dtype: type, channels: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (150, 33, channels), dtype)
    write_png(tmp_path / "a.png", (33, 150), [pixels[:7], pixels[7:]], profile=b"p" * 200, exif=b"Exif\0\0II*\0\x08")
    found = read_full_depth_image(tmp_path / "a.png")
    together = found.pixels if found.alpha is None else np.dstack([found.pixels, found.alpha])
    assert found.pixels.dtype == dtype
    assert np.array_equal(together, pixels)
    assert found.profile == b"p" * 200


def test_rows_that_are_missing_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    strip = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match="the strips have 4 rows, the image 9"):
        write_png(tmp_path / "a.png", (5, 9), [strip])
    with pytest.raises(ValueError, match="does not fit an image 5 wide"):
        write_png(tmp_path / "a.png", (5, 8), [strip, strip.astype(np.uint16)])


def test_a_smooth_image_becomes_a_small_file(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 300, axis=1)
    write_png(tmp_path / "a.png", (300, 256), [rows])
    assert (tmp_path / "a.png").stat().st_size < 5000
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), rows[..., 0])
