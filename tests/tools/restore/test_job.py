"""`regard restore`: images of every kind, and interrupted runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jobs import run
from PIL import Image, ImageCms

from regard import create_model
from regard.datasets.full_depth_image import read_full_depth_image
from regard.file_lock import ProcessLock
from regard.tools.restore import network
from regard.tools.restore.network import find_network
from regard.tools.train.export import export
from regard.vision.restoration_start import start_as_interpolation
from regard.whole_files import PARTIAL

SMALL = {"dim": 8, "depths": [1], "num_heads": 1, "window_size": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that nearly interpolates, twice the size."""
    torch.manual_seed(0)
    network = create_model("hat_tiny_x2", conv_scale=0, **SMALL)
    start_as_interpolation(network)
    folder = tmp_path_factory.mktemp("models") / "twice"
    export(network, folder)
    return folder


def pixels(height: int = 21, width: int = 30, channels: int = 3) -> np.ndarray:
    down, right = np.mgrid[:height, :width]
    return np.stack([40 + 5 * right, 60 + 4 * down, 200 - 3 * right - 2 * down], axis=-1).astype(np.uint8)[
        ..., :channels
    ]


def save(path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels()).save(path, **options)
    return path


def go(*words: object) -> int:
    memory = [] if "--memory" in words else ["--memory", "64GB"]  # this process has run the rest of the suite
    return run("restore", *words, *memory, "--threads", "1")


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_folder_is_restored_once_and_failures_are_named(model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    save(folder / "a.jpg")
    save(folder / "deep" / "b.webp")
    save(folder / "a.png")
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    (folder / "empty.png").write_bytes(b"")
    (folder / "note.txt").write_text("no image")
    frames = [Image.fromarray(pixels()), Image.fromarray(255 - pixels())]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    assert go(folder, out, "--model", model) == 1
    made = {str(path.relative_to(out)) for path in out.rglob("*.png")}
    assert made == {"a.png", "a_png.png", "deep/b.png"} or made == {"a.png", "a_jpg.png", "deep/b.png"}
    errors = {Path(row["image"]).name: row["error"] for row in summary(out)["images"] if "error" in row}
    assert set(errors) == {"broken.jpg", "empty.png", "moving.gif"}
    assert "2 frames" in errors["moving.gif"]
    assert "empty" in errors["empty.png"]
    before = (out / "deep/b.png").stat().st_mtime_ns
    (out / "a.png").unlink()
    assert go(folder, out, "--model", model) == 1
    assert (out / "a.png").is_file()
    assert (out / "deep/b.png").stat().st_mtime_ns == before
    again = summary(out)
    assert (again["restored"], again["kept"], again["failed"]) == (1, 2, 3)
    assert len(again["images"]) == 6


def test_metadata_of_an_image_is_kept(model: Path, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274] = 6
    exif.get_ifd(0x8769).update({0xA002: 30, 0xA003: 21})
    source = save(tmp_path / "in.jpg", icc_profile=profile, exif=exif, quality=98)
    for name in ("out.png", "out.jpg", "out.webp", "out.tiff"):
        assert go(source, tmp_path / name, "--model", model) == 0
        with Image.open(tmp_path / name) as found:
            assert found.size == ((42, 60) if name == "out.tiff" else (60, 42))  # Pillow turns a TIFF by itself
            assert found.info["icc_profile"] == profile
            assert found.getexif()[274] == 6
            assert found.getexif().get_ifd(0x8769)[0xA002] == 60


def test_transparency_grey_and_16_bits_are_kept(model: Path, tmp_path: Path) -> None:
    clear = np.dstack([pixels(), np.tile(np.arange(30, dtype=np.uint8) * 8, (21, 1))])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(pixels()[..., 0]).save(tmp_path / "grey.png")
    cv2.imwrite(str(tmp_path / "deep.png"), clear.astype(np.uint16)[..., [2, 1, 0, 3]] * 257)
    Image.fromarray(pixels()).quantize(200).save(tmp_path / "palette.png")
    Image.fromarray(pixels()).convert("CMYK").save(tmp_path / "inks.jpg", quality=100)
    Image.fromarray(pixels()[:1, :1]).save(tmp_path / "one.png")
    out = tmp_path / "out"
    assert go(tmp_path / "*.*g", out, "--model", model) == 0
    found = {path.stem: read_full_depth_image(path) for path in out.glob("*.png")}
    assert found["one"].pixels.shape == (2, 2, 3)
    assert found["grey"].pixels.shape == (42, 60, 1)
    deep = found["deep"]
    assert deep.pixels.dtype == np.uint16
    assert deep.alpha is not None
    assert np.abs(deep.alpha[20, 4:-4].astype(float) / 257 - np.repeat(np.arange(30) * 8, 2)[4:-4]).max() < 3
    assert len(np.unique(deep.pixels)) > 256
    for name in ("clear", "palette", "inks"):
        assert found[name].pixels.shape == (42, 60, 3)
        apart = found[name].pixels[8:-8:2, 8:-8:2].astype(float) - pixels()[4:-4, 4:-4]
        assert np.abs(apart).mean() < 12
    assert found["clear"].alpha is not None


def test_tiles_make_the_same_image(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(np.pad(pixels(), ((0, 60), (0, 40), (0, 0)), mode="reflect")).save(source)
    assert go(source, tmp_path / "whole.png", "--model", model) == 0
    assert go(source, tmp_path / "tiled.png", "--model", model, "--tile", 32, "--overlap", 16) == 0
    whole, tiled = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("whole.png", "tiled.png"))
    assert np.abs(whole - tiled).max() <= 1


def test_an_interrupted_run_leaves_no_partial_image(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    source, out = save(tmp_path / "in" / "a.png"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("regard.tools.restore.tiled_image.write_png", stop)
        assert go(source.parent, out, "--model", model) == 130
    assert not [path for path in out.iterdir() if path.suffix == ".png"]
    assert go(source.parent, out, "--model", model) == 0
    assert (out / "a.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "is missing"),
        (("in",), "give images and a result: IN OUT"),
        (("in", "in"), "is where the images are"),
        (("nowhere", "out"), "no image or folder nowhere"),
        (("empty", "out"), "there are no images in empty"),
        (("in/a.png", "in/a.png"), "is the image itself"),
        (("in/a.png", "a.xyz"), "a result ends in .png"),
        (("in", "out", "--memory", "much"), "memory"),
        (("in", "out", "--memory", "1MB"), None),
        (("in", "out", "--tile", "0"), "tile is 0; give 1 or more"),
        (("in", "out", "--tile", "16"), "less than twice the overlap of 16 px; give --tile 32"),
        (("in", "out", "--scale", "3"), "enlarges 2 times, not 3"),
        (("in", "out", "--model", "resnet10t"), None),
        (("in", "out", "--dtype", "float16"), "float16"),
    ],
)
def test_wrong_settings_are_named(
    words: tuple[str, ...],
    message: str | None,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    named = () if "--model" in words else ("--model", str(model))
    if words[-1:] == ("resnet10t",):
        monkeypatch.setattr(network, "create_model", lambda name, pretrained: torch.nn.Linear(1, 1))
        message = "does not restore images"
    expected = 2
    if message is None:  # that an image does not fit is a matter of that image
        message, expected = "do not fit into the memory limit", 1
    assert go(*words, *named) == expected
    printed = capsys.readouterr()
    assert message in " ".join((printed.err + printed.out).split())


def test_results_of_other_settings_are_not_mixed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = save(tmp_path / "in" / "a.png"), tmp_path / "out"
    assert go(source.parent, out, "--model", model) == 0
    assert go(source.parent, out, "--model", model, "--overlap", 8) == 2
    assert "a run with other settings (overlap: None there, 8 here)" in capsys.readouterr().err
    assert go(source.parent, out, "--model", model, "--overlap", 8, "--overwrite", "true") == 0


def test_a_busy_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, lock = save(tmp_path / "in" / "a.png"), ProcessLock(tmp_path / "out" / ".run.lock")
    assert lock.acquire()
    assert go(source.parent, tmp_path / "out") == 2
    assert f"another process is active in {tmp_path / 'out'}" in capsys.readouterr().err
    lock.release()


def test_a_file_of_weights_of_any_size_is_a_model(tmp_path: Path) -> None:
    network = create_model("hat_tiny_x2", scale=8, **SMALL)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "net.pth")
    assert find_network(str(tmp_path / "net.pth")).scale == 8
    torch.save({"head.weight": torch.zeros(3, 4)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold a restoration network"):
        find_network(str(tmp_path / "other.pth"))


def test_leftovers_of_a_killed_run_are_removed_but_not_what_another_writes(model: Path, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "a.png")
    old, new = (tmp_path / f".a_x2.png.{name}{PARTIAL}.png" for name in ("0123", "4567"))
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    assert go(image, tmp_path / "a_x2.png", "--model", model) == 0
    assert not old.exists()
    assert new.exists()
