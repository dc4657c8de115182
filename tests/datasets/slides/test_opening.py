import pickle
import re
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from regard.datasets.slides.discovery import find_slides
from regard.datasets.slides.opening import open_slide
from regard.datasets.slides.slide import Slide, UnreadableSlideError, UnreadableTileError
from regard.datasets.slides.tiff_slide import TiffSlide
from regard.datasets.slides.writing import write_slide

APERIO = "Aperio Image Library v11\r\n512x512 [0,0 512x512] (256x256) J2K/KDU Q=70|AppMag = 20|MPP = 0.5"


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (544, 608), interpolation=cv2.INTER_CUBIC)


def both(path: Path) -> tuple[Slide, Slide]:
    return open_slide(path, reader="tiff"), open_slide(path, reader="openslide")


@pytest.mark.parametrize("kind", ["aperio", "generic"])
@pytest.mark.parametrize("quality", [85, None])
def test_the_tiff_reader_gives_the_pixels_of_openslide(
    texture: np.ndarray, tmp_path: Path, kind: str, quality: int | None
) -> None:
    write_slide(tmp_path / "a.svs", texture, mpp=0.25, objective=40.0, kind=kind, quality=quality, levels=(1, 4, 16))
    ours, theirs = both(tmp_path / "a.svs")
    assert ours.levels == theirs.levels
    assert (ours.mpp, ours.objective, ours.vendor) == (theirs.mpp, theirs.objective, theirs.vendor)
    assert ours.mpp == 0.25
    assert ours.associated().keys() == theirs.associated().keys()
    for level, (x, y) in [(0, (3, 5)), (0, (-20, -7)), (0, (500, 580)), (1, (100, 40)), (2, (0, 0)), (0, (900, 0))]:
        np.testing.assert_array_equal(ours.read(x, y, 90, 70, level), theirs.read(x, y, 90, 70, level))


@pytest.mark.parametrize("compression", [33003, 33005])
def test_jpeg_2000_of_aperio_gives_the_pixels_of_openslide(tmp_path: Path, compression: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    coded = [
        imagecodecs.jpeg2k_encode(each, level=0, codecformat="j2k", mct=compression == 33005)
        for each in (pixels[0], pixels[1], pixels[1], pixels[0])
    ]
    colours = "rgb" if compression == 33005 else "ycbcr"
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        options = {"photometric": colours, "compression": compression, "metadata": None, "description": APERIO}
        writer.write(iter(coded), shape=(128, 128, 3), dtype=np.uint8, tile=(64, 64), **options)
    ours, theirs = both(tmp_path / "a.svs")
    np.testing.assert_array_equal(ours.read(0, 0, 128, 128), theirs.read(0, 0, 128, 128))
    assert open_slide(tmp_path / "a.svs").reader == "tiff"


def test_an_ome_tiff_keeps_the_pyramid_that_openslide_does_not_see(texture: np.ndarray, tmp_path: Path) -> None:
    write_slide(tmp_path / "a.ome.tif", texture, mpp=0.46, objective=20.0, kind="ome", quality=None, levels=(1, 4))
    slide = open_slide(tmp_path / "a.ome.tif")
    assert (slide.reader, len(slide.levels), slide.mpp, slide.objective) == ("tiff", 2, 0.46, 20)
    assert len(open_slide(tmp_path / "a.ome.tif", reader="openslide").levels) == 1
    np.testing.assert_array_equal(slide.read(0, 0, 544, 608), texture)
    means = texture.reshape(152, 4, 136, 4, 3).mean((1, 3))
    np.testing.assert_allclose(slide.read(0, 0, 136, 152, 1), means, atol=0.51)


def test_tiles_that_the_file_leaves_out_and_what_lies_outside_are_white(tmp_path: Path) -> None:
    def source(x: int, y: int, width: int, height: int) -> np.ndarray | None:
        return np.zeros((height, width, 3), np.uint8) if (x, y) == (256, 256) else None

    write_slide(tmp_path / "a.svs", source, size=(600, 600), quality=None, levels=(1, 4))
    for slide in both(tmp_path / "a.svs"):
        pixels = slide.read(200, 200, 500, 500)
        assert (pixels[56:312, 56:312] == 0).all()
        assert pixels.sum(dtype=int) == 255 * 3 * (500**2 - 256**2)
    assert (tmp_path / "a.svs").stat().st_size < 10_000


def test_lower_tiles_that_openslide_fills_from_above_are_left_to_openslide(texture: np.ndarray, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        options = {"dtype": np.uint8, "tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
        tiles = [imagecodecs.zlib_encode(np.full((256, 256, 3), 99, np.uint8))] * 4
        writer.write(iter(tiles), shape=(512, 512, 3), metadata=None, description=APERIO, **options)
        writer.write(iter([b""]), shape=(256, 256, 3), metadata=None, description=APERIO, **options)
    assert open_slide(tmp_path / "a.svs").reader == "openslide"
    with pytest.raises(UnreadableSlideError, match="lower levels omit tiles"):
        TiffSlide(tmp_path / "a.svs")


@pytest.mark.parametrize(
    ("unit", "dots", "mpp"), [("CENTIMETER", 20_000, 0.5), ("INCH", 50_800, 0.5), ("INCH", 72, None), ("NONE", 1, None)]
)
def test_microns_per_pixel_come_from_a_microscope_only(
    tmp_path: Path, unit: str, dots: float, mpp: float | None
) -> None:
    pixels = np.zeros((256, 256, 3), np.uint8)
    options = {"resolution": (dots, dots), "resolutionunit": unit}
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), photometric="rgb", **options)
    for slide in (*both(tmp_path / "a.tif"), open_slide(tmp_path / "a.tif", reader="image")):
        assert slide.mpp == (mpp if mpp is None else pytest.approx(mpp, rel=1e-4))
    assert open_slide(tmp_path / "a.tif", mpp=0.3).mpp == 0.3


def test_a_damaged_tile_spoils_only_itself(texture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_slide(path, texture, mpp=0.5, levels=(1,))
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].dataoffsets[4]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 100)
    for slide in both(path):
        before = slide.read(0, 0, 256, 256)
        with pytest.raises(UnreadableTileError, match=re.escape(str(path))):
            slide.read(300, 300, 10, 10)
        np.testing.assert_array_equal(slide.read(0, 0, 256, 256), before)


def test_a_jpeg_tile_without_its_end_is_damaged_not_grey(texture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_slide(path, texture, mpp=0.5, levels=(1,))
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].dataoffsets[4] + tiff.pages[0].databytecounts[4] // 2
        end = tiff.pages[0].dataoffsets[4] + tiff.pages[0].databytecounts[4]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(end - at))
    with pytest.raises(UnreadableTileError, match="tile 1, 1 of level 0: a truncated JPEG tile"):
        open_slide(path, reader="tiff").read(300, 300, 10, 10)


@pytest.mark.parametrize("reader", ["tiff", "openslide", "image"])
def test_a_slide_can_be_pickled_closed_and_read_again(texture: np.ndarray, tmp_path: Path, reader: str) -> None:
    write_slide(tmp_path / "a.tif", texture, kind="generic", levels=(1,))
    slide = open_slide(tmp_path / "a.tif", reader=reader)
    assert isinstance(slide, Slide)
    pixels = slide.read(0, 0, 50, 50)
    copy = pickle.loads(pickle.dumps(slide))
    slide.close()
    for each in (slide, copy):
        np.testing.assert_array_equal(each.read(0, 0, 50, 50), pixels)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (open_slide(tmp_path / "a.png").read(-5, -5, 60, 60) == 255).all()


def test_a_plain_image_that_is_too_large_says_what_to_do(tmp_path: Path) -> None:
    Image.new("1", (9_000, 8_900)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableSlideError, match="up to 80 million pixels; convert it to a tiled pyramid: vips"):
        open_slide(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.svs", b"", "the file is empty"),
        ("a.svs", bytes(9000), "begins with zeros only"),
        ("a.svs", b"<!DOCTYPE html><html>log in</html>\n", "is a text file that begins with '<!DOCTYPE html>"),
        ("a.svs", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.svs", b"II*\0\x08\0", "its directory is damaged"),
        ("a.mrxs", b"\xff\xd8\xff", "the folder a with its data is missing next to it"),
        ("a.svs", b"\x80\x81\x82", "OpenSlide does not know its format; Pillow does not know its format"),
    ],
)
def test_what_is_not_a_slide_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableSlideError, match=reason):
        open_slide(tmp_path / name)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_slide_that_is_cut_off_is_refused(texture: np.ndarray, tmp_path: Path, share: float) -> None:
    write_slide(tmp_path / "a.svs", texture, mpp=0.5, levels=(1, 4))
    whole = (tmp_path / "a.svs").read_bytes()
    (tmp_path / "a.svs").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UnreadableSlideError, match="it is truncated"):
        open_slide(tmp_path / "a.svs")


def test_sixteen_bits_are_left_to_openslide_and_floats_refused(tmp_path: Path) -> None:
    pixels = np.full((256, 256, 3), 25_700, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), photometric="rgb")
    slide = open_slide(tmp_path / "a.tif")
    assert slide.reader == "openslide"
    assert (slide.read(0, 0, 9, 9) == 100).all()
    tifffile.imwrite(tmp_path / "b.tif", pixels[..., 0].astype(np.float32), tile=(128, 128))
    with pytest.raises(UnreadableSlideError, match="32 bits a pixel, not interleaved 8-bit RGB"):
        open_slide(tmp_path / "b.tif")


def test_wrong_arguments_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlideError, match="no such file"):
        open_slide(tmp_path / "a.svs")
    with pytest.raises(UnreadableSlideError, match="a folder without a DICOM series"):
        open_slide(tmp_path)
    (tmp_path / "a.svs").touch()
    with pytest.raises(ValueError, match="mpp must be above 0 microns per pixel, not -1"):
        open_slide(tmp_path / "a.svs", mpp=-1.0)


def test_slides_are_found_once_and_what_belongs_to_one_is_not_another(tmp_path: Path) -> None:
    names = "b.svs a.TIF notes.txt .hidden.svs sub/c.ome.tif scan/d.vms scan/d_map.jpg e.mrxs e/Data0.dat"
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "scan/d.vms").write_text("[Virtual Microscope Specimen]\nMapFile=d_map.jpg\n")
    (tmp_path / "sub/again").symlink_to(tmp_path)
    found = ["a.TIF", "b.svs", "e.mrxs", "scan/d.vms", "sub/c.ome.tif"]
    assert [path.relative_to(tmp_path).as_posix() for path in find_slides([tmp_path])] == found
    named = [tmp_path / "notes.txt", tmp_path / "b.svs"]
    assert find_slides([*named, tmp_path / "b.svs"]) == named
    with pytest.raises(ValueError, match="there is no file or folder"):
        find_slides([tmp_path / "missing"])


def test_the_files_of_a_dicom_series_are_one_slide(tmp_path: Path) -> None:
    def file(series: str) -> bytes:
        numbers = [b"\x20\x00\x0d\x00UI\x04\x001.2\0", b"\x20\x00\x0e\x00UI\x04\x00" + series.encode() + b"\0"]
        return bytes(128) + b"DICM" + b"".join(numbers)

    for name, series in [("one/1", "1.3"), ("one/2", "1.3"), ("two/1", "1.4"), ("two/2", "1.5"), ("two/3", "1.4")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.dcm").write_bytes(file(series))
    found = [path.relative_to(tmp_path).as_posix() for path in find_slides([tmp_path])]
    assert found == ["one", "two/1.dcm", "two/2.dcm"]
