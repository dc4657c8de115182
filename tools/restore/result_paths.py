"""Which images a command restores, and to which files; without torch, so that mistakes are reported at once."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from ...datasets.image_reading import image_suffixes
from ...whole_files import is_partial

__all__ = ["RESULT_SUFFIXES", "result_paths"]

#: Suffixes of results.
RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def result_paths(paths: Sequence[str], format: str) -> tuple[list[tuple[Path, Path]], Path | None]:
    """List the images to restore with the paths of their results.

    Args:
        paths: images, folders or globs, followed by the result.
        format: suffix of results in a folder, without the dot.

    Returns:
        Pairs of image and result, and the folder of results; None if the result is a single file.

    Raises:
        ValueError: there are no images, or results would overwrite images or one another.
    """
    *sources, last = paths
    out = Path(last)
    found: dict[Path, Path] = {}  # image -> its path below the folder of results
    for source in sources:
        for path, below in _images(source, out):
            found.setdefault(path, below)
    if not found:
        raise ValueError(f"there are no images in {', '.join(sources)}; an image ends in .png, .jpg, .tif, ...")
    single = len(sources) == 1 and Path(sources[0]).is_file()
    if single and out.suffix.lower() in RESULT_SUFFIXES and not out.is_dir():
        (image,) = found
        if out.exists() and out.samefile(image):
            raise ValueError(f"{out} is the image itself; give the result another name")
        return [(image, out)], None
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; the results of several images need a folder")
    if out.suffix and not out.exists() and single:
        raise ValueError(f"a result ends in {', '.join(RESULT_SUFFIXES)}, not in {out.suffix}; or give a folder")
    images: dict[Path, Path] = {}  # result -> image
    for image, below in found.items():
        result = out / below.with_suffix(f".{format}")
        if result in images:  # a.jpg and a.png
            result = out / below.with_name(f"{below.stem}_{below.suffix[1:]}.{format}")
        if result in images:
            raise ValueError(f"{image} and {images[result]} would both become {result}; restore them one by one")
        if image.resolve() == result.resolve() or image.resolve().parent == out.resolve():
            raise ValueError(f"{out} is where the images are; give another folder for the results")
        images[result] = image
    return [(image, result) for result, image in images.items()], out


def _images(source: str, out: Path) -> list[tuple[Path, Path]]:
    """Find the images of a path or glob, each with its path below the folder of results."""
    path = Path(source)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        nested = out.resolve() != path.resolve()  # then results are not read as images again
        inside = (file for file in sorted(path.rglob("*")) if _is_image(file))
        return [(file, file.relative_to(path)) for file in inside if not (nested and _is_below(file, out))]
    if glob.has_magic(source):
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        return [(file, Path(file.name)) for file in found if _is_image(file)]
    raise ValueError(f"there is no image or folder {source}")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in image_suffixes() and path.is_file() and not is_partial(path)


def _is_below(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents
