import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.datasets.image_reading import UnreadableImageError, image_suffixes, read_image, to_channels

WHITE = (255, 255, 255)


def saved(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "GIF"),
        ("RGB", "JPEG"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"),
        ("I;16", "PNG"),
        ("I;16B", "TIFF"),
        ("I", "TIFF"),
        ("F", "TIFF"),
    ],
)
def test_every_colour_mode_becomes_eight_bits(mode: str, kind: str, channels: int) -> None:
    image = read_image(saved(Image.new(mode, (5, 3)), kind), channels=channels)
    assert (image.mode, image.size) == ({1: "L", 3: "RGB"}[channels], (5, 3))


def test_a_transparent_pixel_is_white() -> None:
    assert read_image(saved(Image.new("RGBA", (2, 2), (9, 9, 9, 0)), "PNG")).getpixel((0, 0)) == WHITE


def test_a_half_transparent_grey_pixel_is_laid_over_white() -> None:
    assert read_image(saved(Image.new("LA", (2, 2), (0, 51)), "PNG"), channels=1).getpixel((0, 0)) == 204


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    read = read_image(saved(image, "PNG", transparency=0))
    assert (read.getpixel((0, 0)), read.getpixel((1, 0))) == (WHITE, (40, 50, 60))


def test_a_palette_with_a_transparency_for_each_colour_is_read() -> None:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 0, 0, 0])
    assert read_image(saved(image, "PNG", transparency=bytes([255, 0]))).getpixel((0, 0)) == WHITE


def test_a_transparent_colour_of_an_rgb_file_is_white() -> None:
    file = saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert read_image(file).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_sixteen_bits_are_scaled_and_not_clipped(dtype: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=dtype)
    image = Image.frombytes({"<u2": "I;16", ">u2": "I;16B", "<i4": "I"}[dtype], (4, 1), values.tobytes())
    assert np.asarray(read_image(saved(image, "TIFF"), channels=1)).tolist() == [[0, 1, 128, 255]]


def test_a_png_of_sixteen_bits_is_scaled() -> None:
    image = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    assert np.asarray(read_image(saved(image, "PNG"), channels=1)).tolist() == [[0, 255]]


@pytest.mark.parametrize(("values", "expected"), [([0, 1], [0, 255]), ([0, 200], [0, 200]), ([0, 65535], [0, 255])])
def test_floats_span_the_range_that_holds_them(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(read_image(saved(image, "TIFF"), channels=1)).tolist() == [expected]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 70000.0])
def test_floats_beyond_every_range_are_unreadable(value: float) -> None:
    image = Image.fromarray(np.array([[0.0, value]], dtype=np.float32))
    with pytest.raises(UnreadableImageError, match="values"):
        read_image(saved(image, "TIFF"))


def test_a_rotation_in_the_exif_data_is_applied() -> None:
    image = Image.new("RGB", (6, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_image(saved(image, "JPEG", exif=exif)).size == (2, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_does_not_make_an_image_unreadable() -> None:
    file = saved(Image.new("RGB", (6, 2)), "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff")
    assert read_image(file).size == (6, 2)


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (0, 255)]
    file = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(file, channels=1).getpixel((0, 0)) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"no image at all", "not an image that Pillow can read"), (None, "no such file")],
)
def test_a_file_that_is_no_image_is_named_with_the_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "cat.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read_image(path)
    assert caught.value.path == str(path)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_file_is_unreadable(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path = tmp_path / "cat"
    path.write_bytes(saved(noise, kind).getvalue()[:-2000])
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(path)


def test_a_decompression_bomb_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(Image.new("1", (300, 300)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImageError, match="MAX_IMAGE_PIXELS"):
        read_image(file)


def test_an_unreadable_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImageError("a.png", "empty")))
    assert (error.path, error.reason, str(error)) == ("a.png", "empty", "cannot read the image a.png: empty")


def test_an_image_that_fits_is_not_copied() -> None:
    image = Image.new("RGB", (2, 2))
    assert to_channels(image, 3) is image


def test_suffixes_are_those_that_pillow_can_open() -> None:
    assert {".jpg", ".jpeg", ".png", ".tif", ".webp"} <= image_suffixes()
    assert ".pdf" not in image_suffixes()


def test_a_palette_with_alpha_in_memory_is_laid_over_white() -> None:
    assert to_channels(Image.new("PA", (1, 1)), 3).mode == "RGB"
