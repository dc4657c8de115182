"""`regard restore`: enlarge or clean an image, or all images of folders and globs.

A folder of results holds restore.json (settings and versions), the images, and summary.json with a line for each of
them. Images appear whole or not at all; the same command again restores what is missing, or older than its source.
"""

from __future__ import annotations

import glob
import json
import re
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from ... import __version__
from ...datasets import UnreadableImageError
from ...datasets.image_reading import image_suffixes
from ...vision import create_model
from ...vision.checkpoints import create_from_weights, find_file, identify, looks_like, read_weights
from ...vision.downloads import is_url
from ...vision.restorers import find_restorer, load_restorer
from ...vision.tiling import tile_cost
from ...whole_files import PARTIAL, write_atomically
from ..benchmark.profiler import peak_bytes
from ..run.progress import progress
from ..settings import RestoreSettings
from .tiled_image import Restorer, restore_file

__all__ = ["find_model", "parse_bytes", "run"]

#: Seconds without a write after which a half file is nobody's.
_LEFT_S = 600

#: Formats of results, by the ends of their names.
_SUFFIXES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}


def run(settings: RestoreSettings) -> int:
    """Restore what is not there yet.

    Args:
        settings: see `RestoreSettings`.

    Returns:
        0, or 1 when images could not be restored; they are named.

    Raises:
        ValueError: a setting is out of range, there are no images, or the folder has results of other settings.
        FileNotFoundError: there is no such file of weights.
        OSError: the weights cannot be fetched, or the results not be written.
    """
    _check(settings)
    pairs, folder = _plan(settings)
    if folder:
        _claim(folder, settings)
    missing = [pair for pair in pairs if settings.overwrite or not _is_done(*pair)]
    if not folder and not missing:
        raise ValueError(f"{pairs[0][1]} is there already; give another name, or --overwrite true")
    rows: list[dict[str, Any]] = []
    if missing:
        _remove_leftovers(missing)
        threads = torch.get_num_threads()
        torch.set_num_threads(settings.threads or threads)
        try:
            rows = _restore(missing, _build(settings), bool(folder))
        finally:
            torch.set_num_threads(threads)
    kept = len(pairs) - len(missing)
    failed = [row for row in rows if "error" in row]
    if folder:
        earlier = _earlier(folder, {str(result) for _, result in pairs} - {row["result"] for row in rows})
        summary = {"restored": len(rows) - len(failed), "kept": kept, "failed": len(failed)}
        write_atomically(folder / "summary.json", json.dumps(summary | {"images": [*earlier, *rows]}, indent=1))
    _print(rows, kept, settings)
    return 1 if failed else 0


def _check(settings: RestoreSettings) -> None:
    if len(settings.paths) < 2:
        raise ValueError(f"{settings.paths[0] if settings.paths else 'nothing'} is given; say also where to: IN OUT")
    for name in ("tile", "overlap", "quality", "threads", "scale"):
        value, least = getattr(settings, name), 0 if name == "overlap" else 1
        if isinstance(value, int) and value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if settings.quality > 100:
        raise ValueError(f"quality is {settings.quality}; it is 1 to 100")
    parse_bytes(settings.memory)


def parse_bytes(text: str) -> float:
    """A number of bytes in words.

    Raises:
        ValueError: it is none.

    Example:
        >>> parse_bytes("1.5GB"), parse_bytes("800 mb")
        (1500000000.0, 800000000.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])?i?b?\s*", text.lower())
    if not found or float(found[1]) == 0:
        raise ValueError(f"memory is {text!r}; give it as 4GB or 800MB")
    return float(found[1]) * 10 ** {None: 0, "k": 3, "m": 6, "g": 9, "t": 12}[found[2]]


def _plan(settings: RestoreSettings) -> tuple[list[tuple[Path, Path]], Path | None]:
    """Images and where each goes; and the folder of the results, unless a single file was asked for.

    Raises:
        ValueError: no images, or results would take the place of what is restored.
    """
    *sources, last = settings.paths
    out = Path(last)
    found: dict[Path, Path] = {}  # image -> its path below the results
    for source in sources:
        for path, below in _images(source, out):
            found.setdefault(path, below)
    if not found:
        raise ValueError(f"no images are in {', '.join(sources)}; an image ends in .png, .jpg, .tif, ...")
    single = len(sources) == 1 and Path(sources[0]).is_file()
    if single and out.suffix.lower() in _SUFFIXES and not out.is_dir():
        (image,) = found
        if out.exists() and out.samefile(image):
            raise ValueError(f"{out} is the image itself; give the result another name")
        return [(image, out)], None
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; several images need a folder to go to")
    if out.suffix and not out.exists() and single:
        raise ValueError(f"a result ends in {', '.join(_SUFFIXES)}, not in {out.suffix}; or give a folder")
    places: dict[Path, Path] = {}  # result -> image
    for image, below in found.items():
        place = out / below.with_suffix(f".{settings.format}")
        if place in places:  # a.jpg and a.png
            place = out / below.with_name(f"{below.stem}_{below.suffix[1:]}.{settings.format}")
        if place in places:
            raise ValueError(f"{image} and {places[place]} would both become {place}; restore them one by one")
        if image.resolve() == place.resolve() or image.resolve().parent == out.resolve():
            raise ValueError(f"{out} is where the images are; give another folder for the results")
        places[place] = image
    return [(image, place) for place, image in places.items()], out


def _images(source: str, out: Path) -> list[tuple[Path, Path]]:
    """The images that a word means, each with its path below the folder of results."""
    suffixes = image_suffixes()
    path = Path(source)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        inside = [
            one
            for one in sorted(path.rglob("*"))
            if one.suffix.lower() in suffixes and one.is_file() and PARTIAL not in one.name
        ]
        apart = [one for one in inside if out.resolve() == path.resolve() or out.resolve() not in one.resolve().parents]
        return [(one, one.relative_to(path)) for one in apart]
    if glob.has_magic(source):
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        return [(one, Path(one.name)) for one in found if one.suffix.lower() in suffixes and one.is_file()]
    raise ValueError(f"there is no image or folder {source}")


def _claim(folder: Path, settings: RestoreSettings) -> None:
    """Write down what makes the results in a folder, or see that it is the same as before.

    Raises:
        ValueError: it has results of other settings.
    """
    names = ("model", "scale", "tile", "overlap", "format", "quality", "dtype")
    now = {name: getattr(settings, name) for name in names}
    record = folder / "restore.json"
    if record.is_file() and not settings.overwrite:
        try:
            before = json.loads(record.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, LookupError, TypeError):
            before = {}
        different = [
            f"{name}: {before.get(name)!r} there, {now[name]!r} here" for name in now if before.get(name) != now[name]
        ]
        if different:
            raise ValueError(
                f"{folder} has results of other settings ({'; '.join(different)}); "
                "give another folder, or --overwrite true"
            )
    versions = {"regard": __version__, "torch": torch.__version__}
    write_atomically(record, json.dumps({"settings": now, "versions": versions}, indent=1))


def _remove_leftovers(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Remove what killed runs left of results; what was written to of late may be another run's that is at work."""
    for _, result in pairs:
        for left in result.parent.glob(f".{glob.escape(result.name)}.*{PARTIAL}*"):
            if time.time() - left.stat().st_mtime > _LEFT_S:
                left.unlink(missing_ok=True)


def _earlier(folder: Path, results: set[str]) -> list[dict[str, Any]]:
    """What an earlier summary says of results that were kept."""
    try:
        rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["images"]
        return [row for row in rows if row["result"] in results]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _is_done(image: Path, result: Path) -> bool:
    """Whether a result is there and no older than its image."""
    return result.is_file() and (not image.is_file() or result.stat().st_mtime >= image.stat().st_mtime)


def _build(settings: RestoreSettings) -> Restorer:
    """Load the network and measure what its tiles take."""
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {settings.device!r} but torch finds no CUDA device; use cpu")
    model: Any = find_model(settings.model, settings.scale)
    model = model.to(device, getattr(torch, settings.dtype)).eval().requires_grad_(False)
    window = model.window_size
    overlap = 4 * window if settings.overlap is None else -(-settings.overlap // window) * window
    tile = None if settings.tile == "auto" else max(window, settings.tile // window * window)
    if tile is not None and 2 * overlap > tile:
        raise ValueError(
            f"tile {settings.tile} is less than twice the overlap of {overlap} px; --tile {2 * overlap}, or a smaller "
            f"--overlap, would do (the windows of this model are {window} px)"
        )
    cost = tile_cost(model, lambda once: peak_bytes(once, device.type))
    return Restorer(model, settings.model, parse_bytes(settings.memory), cost, tile, overlap, settings.quality)


def find_model(source: str, scale: int | None = None) -> nn.Module:
    """A network that restores.

    Args:
        source: as `RestoreSettings.model`.
        scale: what it must enlarge by, if that is given.

    Raises:
        ValueError: there is none, it restores nothing, or it has another scale.
    """
    name = f"hat_photo_x{scale or 2}" if source == "embedded" else source
    if find_restorer(name):
        model = load_restorer(name)
    elif is_url(name) or Path(name).is_file():
        weights = read_weights(find_file(name))
        found = identify(weights)
        if found is None or not found[0].startswith("hat_"):
            raise ValueError(f"{name} holds no network that restores: {looks_like(weights) or 'its names are unknown'}")
        model = create_from_weights(found[0], weights, name, **found[1])
    elif source == "embedded":
        raise ValueError(f"no embedded model enlarges {scale} times; name one with --model")
    else:
        model = create_model(name, pretrained=True)
    if not all(hasattr(model, attribute) for attribute in ("scale", "window_size", "in_chans")):
        raise ValueError(f"{name} restores no images; regard list --kind models shows those with a PSNR, which do")
    if scale not in (None, model.scale):
        raise ValueError(f"{name} enlarges {model.scale} times, not {scale}; leave --scale out, or name another model")
    return model


def _restore(pairs: Sequence[tuple[Path, Path]], restorer: Restorer, several: bool) -> list[dict[str, Any]]:
    """Restore one after another; what fails is in its row."""
    rows: list[dict[str, Any]] = []
    for place, (image, result) in enumerate(pairs):
        name, begun = f"{place + 1}/{len(pairs)} {image.name}", time.monotonic()
        row: dict[str, Any] = {"image": str(image), "result": str(result)}
        try:
            pixels = _pixels(image)
            with progress(f"{name}, pixels", pixels) if pixels else nullcontext(lambda count: None) as step:
                row |= restore_file(restorer, image, result, step)
            row["seconds"] = round(time.monotonic() - begun, 2)
            notes = "".join(f"; {note}" for note in row["notes"])
            sizes = f"{row['from'][0]} x {row['from'][1]} -> {row['to'][0]} x {row['to'][1]}"
            sys.stderr.write(f"{name}: {sizes}, {row['seconds']:.1f} s{notes}\n")
        except UnreadableImageError as error:
            row["error"] = error.reason
        except (ValueError, torch.cuda.OutOfMemoryError) as error:
            row["error"] = str(error)
        if "error" in row:
            sys.stderr.write(f"{name}: not restored: {row['error']}\n")
        rows.append(row)
    return rows


def _pixels(image: Path) -> int:
    try:
        with Image.open(image) as opened:
            return opened.width * opened.height
    except Exception:  # whoever reads it says what is wrong
        return 0


def _print(rows: Sequence[dict[str, Any]], kept: int, settings: RestoreSettings) -> None:
    """One result by its name, several as a table of what failed."""
    failed = [row for row in rows if "error" in row]
    if len(rows) == 1 and not failed and not kept:
        print(rows[0]["result"])
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    if failed:
        table = Table("image", "why it was not restored")
        for row in failed:
            table.add_row(row["image"], row["error"])
        console.print(table)
    print(f"{len(rows) - len(failed)} restored, {kept} there already, {len(failed)} failed: {settings.paths[-1]}")
