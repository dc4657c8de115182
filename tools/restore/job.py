"""`regard restore`: enlarge or clean an image, or all images of folders and globs.

A folder of results holds restore.json (settings and versions), the images, and summary.json with a row for each image.
Images are complete or absent; the same command again restores what is missing or older than its source.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from ... import __version__
from ...datasets.image_reading import UnreadableImageError
from ...file_lock import ProcessLock
from ...whole_files import remove_leftovers, write_atomically
from ..run.progress import progress
from ..settings import RestoreSettings
from .result_paths import result_paths

__all__ = ["run"]

#: Settings that decide what results look like.
_RESULT_SETTINGS = ("model", "scale", "tile", "overlap", "format", "quality", "dtype")


def run(settings: RestoreSettings) -> int:
    """Restore the images whose results are missing.

    Args:
        settings: see `RestoreSettings`.

    Returns:
        0, or 1 if some images could not be restored; they are named.

    Raises:
        ValueError: a setting is invalid, there are no images, or the folder has results of other settings, or
            another process is active in it.
        FileNotFoundError: the file of weights does not exist.
        OSError: the weights cannot be downloaded, or results cannot be written.
    """
    pairs, folder = result_paths(settings.paths, settings.format)
    with _alone_in(folder) if folder else nullcontext():
        return _run(settings, pairs, folder)


def _run(settings: RestoreSettings, pairs: Sequence[tuple[Path, Path]], folder: Path | None) -> int:
    if folder:
        _claim(folder, settings)
    missing = [pair for pair in pairs if settings.overwrite or not _is_done(*pair)]
    if not folder and not missing:
        raise ValueError(f"{pairs[0][1]} exists already; give another name, or --overwrite true")
    for _, result in missing:
        remove_leftovers(result)
    rows = _restore(missing, settings) if missing else []
    kept = len(pairs) - len(missing)
    failed = [row for row in rows if "error" in row]
    if folder:
        earlier = _earlier_rows(folder, {str(result) for _, result in pairs} - {row["result"] for row in rows})
        summary = {"restored": len(rows) - len(failed), "kept": kept, "failed": len(failed)}
        write_atomically(folder / "summary.json", json.dumps(summary | {"images": [*earlier, *rows]}, indent=1))
    _print(rows, kept, settings)
    return 1 if failed else 0


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder of results.

    Raises:
        ValueError: another process is active in it.
    """
    lock = ProcessLock(folder / ".run.lock")
    if not lock.acquire():
        raise ValueError(f"another process is active in {folder}; wait until it ends, or give another folder")
    try:
        yield
    finally:
        lock.release()


def _claim(folder: Path, settings: RestoreSettings) -> None:
    """Record the settings of the results in a folder, or check that they are the same as before.

    Raises:
        ValueError: it has results of other settings.
    """
    now = {name: getattr(settings, name) for name in _RESULT_SETTINGS}
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
    versions = {"regard": __version__, "torch": version("torch")}
    write_atomically(record, json.dumps({"settings": now, "versions": versions}, indent=1))


def _earlier_rows(folder: Path, results: set[str]) -> list[dict[str, Any]]:
    """Rows of an earlier summary for results that were kept."""
    try:
        rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["images"]
        return [row for row in rows if row["result"] in results]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _is_done(image: Path, result: Path) -> bool:
    """Check whether a result exists and is not older than its image."""
    return result.is_file() and (not image.is_file() or result.stat().st_mtime >= image.stat().st_mtime)


def _restore(pairs: Sequence[tuple[Path, Path]], settings: RestoreSettings) -> list[dict[str, Any]]:
    """Restore one image after another; an error is noted in the row of its image."""
    import torch

    from .network import build_restorer
    from .tiled_image import restore_file

    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    rows: list[dict[str, Any]] = []
    try:
        restorer = build_restorer(settings)
        for index, (image, result) in enumerate(pairs):
            name, start = f"{index + 1}/{len(pairs)} {image.name}", time.monotonic()
            row: dict[str, Any] = {"image": str(image), "result": str(result)}
            try:
                pixels = _count_pixels(image)
                with progress(f"{name}, pixels", pixels) if pixels else nullcontext(lambda count: None) as step:
                    row |= restore_file(restorer, image, result, step)
                row["seconds"] = round(time.monotonic() - start, 2)
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
    finally:
        torch.set_num_threads(threads)
    return rows


def _count_pixels(image: Path) -> int:
    try:
        with Image.open(image) as opened:
            return opened.width * opened.height
    except Exception:  # reading it will report the error
        return 0


def _print(rows: Sequence[dict[str, Any]], kept: int, settings: RestoreSettings) -> None:
    """Print the path of a single result, or a table of failures and the counts."""
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
    print(f"{len(rows) - len(failed)} restored, {kept} kept, {len(failed)} failed: {settings.paths[-1]}")
