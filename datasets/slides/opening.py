"""Opens a slide with the reader that fits its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from .image_slide import ImageSlide
from .openslide_slide import OpenSlideSlide
from .slide import Slide, UnreadableSlideError, UnreadableTileError
from .tiff_slide import TRUNCATED, TiffSlide

__all__ = ["open_slide"]

_READERS: dict[str, Callable[..., Slide]] = {"tiff": TiffSlide, "openslide": OpenSlideSlide, "image": ImageSlide}


def open_slide(
    path: str | Path,
    *,
    reader: Literal["auto", "tiff", "openslide", "image"] = "auto",
    mpp: float | None = None,
) -> Slide:
    """Open a slide.

    Args:
        path: the file; of MIRAX the .mrxs file, of DICOM a file of the series, or its folder.
        reader: auto uses tiff where it finds the levels and pixels that OpenSlide finds, or more of them (OME-TIFF),
            openslide for all other formats of OpenSlide, and image for plain images.
        mpp: microns per pixel at full resolution, instead of those in the file.

    Raises:
        ValueError: an unknown reader, or `mpp` is not positive.
        UnreadableSlideError: the file cannot be read; the message gives the reason.

    Example:
        >>> import tempfile
        >>> from regard.datasets.slides.writing import write_slide
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_slide(f"{folder}/a.svs", np.zeros((600, 500, 3), dtype=np.uint8), mpp=0.5, levels=(1, 4))
        ...     slide = open_slide(f"{folder}/a.svs")
        >>> slide.reader, slide.vendor, slide.mpp, [(level.width, level.height) for level in slide.levels]
        ('tiff', 'aperio', 0.5, [(500, 600), (125, 150)])
    """
    if mpp is not None and not 0 < mpp < np.inf:
        raise ValueError(f"mpp must be above 0 microns per pixel, not {mpp}")
    if reader not in ("auto", *_READERS):
        raise ValueError(f"unknown reader {reader!r}; give auto, {', '.join(_READERS)}")
    file = Path(path)
    if not file.exists():
        raise UnreadableSlideError(str(path), "there is no such file")
    if not file.is_file() and not file.is_dir():
        raise UnreadableSlideError(str(path), "it is neither a file nor a folder")
    if file.is_file() and file.stat().st_size == 0:
        raise UnreadableSlideError(str(path), "the file is empty")
    if reader != "auto":
        return _READERS[reader](path, mpp=mpp)
    if file.is_dir():
        return OpenSlideSlide(path, mpp=mpp)
    reasons = []
    if _is_tiff(file):
        try:
            return _prefer_matching(TiffSlide(path, mpp=mpp), path, mpp)
        except UnreadableSlideError as error:
            if error.reason.startswith(TRUNCATED):  # OpenSlide might open what is left
                raise
            reasons.append(error.reason)
    for other in ("openslide", "image"):
        try:
            slide = _READERS[other](path, mpp=mpp)
            if _is_tiff(file):
                _test_read(slide)
            return slide
        except (UnreadableSlideError, UnreadableTileError) as error:
            reasons.append(error.reason)
    specific = [reason for reason in reasons if not reason.endswith("does not know its format")]
    raise UnreadableSlideError(str(path), _other_kind(file) or "; ".join(specific or reasons))


def _test_read(slide: Slide) -> None:
    """Read from the middle or a corner: a TIFF of floating point numbers, or a truncated one, opens without an error.

    Raises:
        UnreadableTileError: neither can be read.
    """
    try:
        slide.read(slide.levels[0].width // 2, slide.levels[0].height // 2, 1, 1)
    except UnreadableTileError:
        slide.read(0, 0, 1, 1)


def _prefer_matching(slide: TiffSlide, path: str | Path, mpp: float | None) -> Slide:
    """OpenSlide's reader instead of ours where it finds another image."""
    try:
        other = OpenSlideSlide(path, mpp=mpp)
    except UnreadableSlideError:
        return slide
    ours, theirs = ([(level.width, level.height) for level in each.levels] for each in (slide, other))
    if ours[: len(theirs)] != theirs:
        slide.close()
        return other
    x, y = slide.corner_of_a_tile()
    try:
        theirs_read = other.read(x, y, 16, 16)
    except UnreadableTileError:
        return slide
    try:
        same = np.array_equal(slide.read(x, y, 16, 16), theirs_read)
    except UnreadableTileError:
        same = False
    (other if same else slide).close()
    return slide if same else other


def _is_tiff(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _other_kind(file: Path) -> str:
    """What a file is instead of a slide, or an empty text."""
    with file.open("rb") as opened:
        start = opened.read(4096)
    if _is_tiff(file):
        return ""
    folder = file.with_suffix("")
    if file.suffix.lower() == ".mrxs" and not folder.is_dir():
        return f"the folder {folder.name} with its data is missing next to it"
    if not start.strip(b"\0"):
        return "it begins with zeros only, like an interrupted download"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself: git lfs pull"
    try:
        text = start[:4000].decode().strip()
    except UnicodeDecodeError:
        return ""
    return f"it is a text file that begins with {text[:40]!r}" if text.isprintable() or "\n" in text else ""
