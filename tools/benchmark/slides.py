"""`regard benchmark slides`: patches per second compared with other readers, and the memory of a huge slide.

The slide is written for it: scikit-image's image of a real stain, mirrored to any size, as a JPEG pyramid in Aperio's
form. Reading is measured on 256 neighbouring patches, on the tiles of the file and off them; every pass opens the
slide again, and all readers must give the same pixels. `encode` adds a small network: ours is read in a thread of its
own while the network runs, the other is a DataLoader over OpenSlide, with no worker and with one. Memory is the most
that a new process ever holds of a slide of 100,000 x 100,000 pixels, beyond what its libraries take: opened, reduced
to a thumbnail, and 2000 patches read.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...datasets.slides.grid import Grid
from ...datasets.slides.opening import open_slide
from ...datasets.slides.patches import PatchReader
from ...datasets.slides.thumbnail import read_thumbnail
from ...datasets.slides.writing import write_slide
from ...vision.encoders import ENCODERS, PatchEncoder, build_encoder
from ..settings import BenchmarkSlidesSettings
from ..slides.read_ahead import ReadAhead
from .profiler import interleaved, quartiles, spread
from .report import report, torch_threads

__all__ = ["lines", "measure", "run", "texture"]

#: Side of a patch and of a tile of the file, in pixels.
_SIDE = 256

#: Patches that are read in a pass.
_COUNT = 256

#: The huge slide: its side in pixels, and patches that are read of it.
_HUGE, _MANY = 100_000, 2000

#: Encoders from tiny to small: of timm (patches of 160 pixels), the embedded one (128), and again of timm (224). Random
#: weights cost the same. The smaller the network, the more of the time is reading.
_ENCODERS = ("test_efficientnet", "embedded", "mobilenetv3_small_050")


def run(settings: BenchmarkSlidesSettings) -> int:
    """Measure, print and write; the exit code is 0.

    Args:
        settings: see `BenchmarkSlidesSettings`.

    Raises:
        ValueError: tiffslide is not installed, or the readers disagree.
    """
    with torch_threads(settings.threads):
        rows = measure(settings)
    report(settings, rows, lines(rows), "of the network")
    return 0


def measure(settings: BenchmarkSlidesSettings) -> list[dict[str, Any]]:
    """A row for every size and kind of reading, and one for memory.

    Raises:
        ValueError: tiffslide is not installed, or the readers disagree.
    """
    try:
        import tiffslide
    except ImportError as error:
        raise ValueError(
            f"slides are compared with tiffslide, which cannot be imported ({error}); pip install tiffslide"
        ) from error
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in settings.slides:
            path = Path(folder, f"{side}.svs")
            write_slide(path, _mirrored(), size=(side, side), mpp=0.25, objective=40.0, levels=(1, 4, 16))
            for what, first in (("aligned", 0), ("unaligned", 100)):
                sys.stderr.write(f"{side} px, {what}\n")
                rows.append(_reading(path, side, what, first, tiffslide, settings))
            for encoder in _ENCODERS:
                sys.stderr.write(f"{side} px, encode, {encoder}\n")
                rows.append(_encoding(path, side, encoder, settings))
        sys.stderr.write(f"{_HUGE} px, memory\n")
        rows.append(_memory(Path(folder, "huge.svs")))
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The lines of the table, by heading."""
    found = []
    for row in rows:
        begin = {"slide": f"{row['side']} px", "what": row["what"]}
        if row["what"] == "memory":
            ours = {"ours": f"{row['mb']:.0f} MB", "reader": "", "its": "", "times faster": ""}
            found.append({**begin, **ours})
        for who, ratio in row.get("times_faster", {}).items():
            speeds = {name: f"{row['patches_per_s'][name]:.0f} patches/s" for name in ("ours", who)}
            found.append(
                {**begin, "ours": speeds["ours"], "reader": who, "its": speeds[who], "times faster": spread(ratio)}
            )
    return found


def texture() -> np.ndarray:
    """A stained section, 1024 x 1024 pixels, that can be laid side by side without seams."""
    import skimage.data

    section = skimage.data.immunohistochemistry()
    row = np.concatenate([section, section[:, ::-1]], axis=1)
    return np.concatenate([row, row[::-1]])


def _mirrored() -> Callable[[int, int, int, int], np.ndarray]:
    whole = texture()

    def source(x: int, y: int, width: int, height: int) -> np.ndarray:
        rows, columns = np.arange(y, y + height) % 1024, np.arange(x, x + width) % 1024
        return whole[rows[:, None], columns]

    return source


def _square_grid(side: int, first: int, patch: int, count: int) -> Grid:
    """The first patches of a slide, in as many rows as columns."""
    line = first + patch * np.arange(int(count**0.5))
    corners = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    spacing = {"patch": patch, "side": patch, "step": patch, "mpp": 0.25, "slide_mpp": 0.25}
    return Grid(corners, np.ones(len(corners)), **spacing, width=side, height=side)  # type: ignore[arg-type]


def _one_by_one(path: Path, grid: Grid) -> Iterator[np.ndarray]:
    """As most pipelines read: OpenSlide, a patch at a time."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        for x, y in grid.coordinates.tolist():
            yield np.asarray(slide.read_region((x, y), 0, (grid.side, grid.side)).convert("RGB"))


def _reading(
    path: Path, side: int, what: str, first: int, tiffslide: Any, settings: BenchmarkSlidesSettings
) -> dict[str, Any]:
    grid = _square_grid(side, first, _SIDE, _COUNT)

    def ours() -> dict[int, np.ndarray]:
        reader = PatchReader(open_slide(path, reader="tiff"), grid)
        return {int(index): pixels for indices, batch in reader for index, pixels in zip(indices, batch, strict=True)}

    def with_openslide() -> dict[int, np.ndarray]:
        return dict(enumerate(_one_by_one(path, grid)))

    def with_tiffslide() -> dict[int, np.ndarray]:
        with tiffslide.TiffSlide(path) as slide:
            corners = enumerate(grid.coordinates.tolist())
            return {index: slide.read_region((x, y), 0, (_SIDE, _SIDE), as_array=True) for index, (x, y) in corners}

    passes = {"ours": ours, "openslide": with_openslide, "tiffslide": with_tiffslide}
    expected = ours()
    for who, once in passes.items():
        found = once()
        if not all(np.array_equal(found[index], expected[index]) for index in range(len(grid))):
            raise ValueError(f"{who} and our reader give different pixels")
    return _row(side, what, passes, len(grid), settings.repeats)


class _Patches(Dataset[Tensor]):
    """What a plain pipeline has: a patch a time, normalised for the network."""

    def __init__(self, path: Path, grid: Grid, mean: Tensor, std: Tensor) -> None:
        self.path, self.grid, self.mean, self.std = path, grid, mean, std
        self.slide: Any = None

    def __len__(self) -> int:
        return len(self.grid)

    def __getitem__(self, index: int) -> Tensor:
        import openslide

        if self.slide is None:
            self.slide = openslide.OpenSlide(self.path)
        corner = tuple(self.grid.coordinates[index].tolist())
        region = self.slide.read_region(corner, 0, (self.grid.side, self.grid.side)).convert("RGB")
        pixels = torch.from_numpy(np.array(region)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std


def _encoder(name: str) -> PatchEncoder:
    if name in ENCODERS:
        return build_encoder(name).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).to(memory_format=torch.channels_last)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    options: dict[str, Any] = {"dim": network.num_features, "size": config["input_size"][-1]}
    return PatchEncoder(network, name=name, mean=config["mean"], std=config["std"], **options).eval()


def _encoding(path: Path, side: int, name: str, settings: BenchmarkSlidesSettings) -> dict[str, Any]:
    encode = _encoder(name)
    grid = _square_grid(side, 100, encode.size, _COUNT)
    colours = encode.mean[0], encode.std[0]  # 3 1 1

    def ours() -> Tensor:
        with torch.inference_mode(), ReadAhead(PatchReader(open_slide(path), grid), waiting=2) as batches:
            read = [(indices, encode(torch.from_numpy(pixels))) for indices, pixels in batches]
        indices, features = zip(*read, strict=True)
        return torch.cat(features)[np.concatenate(indices).argsort()]

    def with_loader(workers: int) -> Tensor:
        loader = DataLoader(_Patches(path, grid, *colours), batch_size=64, num_workers=workers)
        with torch.inference_mode():
            return torch.cat([encode.network(batch.to(memory_format=torch.channels_last)) for batch in loader])

    passes = {"ours": ours, "loader": lambda: with_loader(0), "loader with a worker": lambda: with_loader(1)}
    expected = ours()
    for who, once in passes.items():
        if not torch.allclose(once(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            raise ValueError(f"{who} and ours give different features")
    return _row(side, f"encode, {name}", passes, len(grid), settings.repeats)


def _row(side: int, what: str, passes: dict[str, Callable[[], Any]], count: int, repeats: int) -> dict[str, Any]:
    seconds = interleaved(passes, repeats, "cpu")
    return {
        "side": side,
        "what": what,
        "patches_per_s": {who: count / statistics.median(taken) for who, taken in seconds.items()},
        "times_faster": {who: quartiles(taken, seconds["ours"]) for who, taken in seconds.items() if who != "ours"},
    }


def _memory(path: Path) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    around = context.Queue()
    filled = np.random.default_rng(0).permutation(390 * 390)[:_MANY]
    whole = texture()[:_SIDE, :_SIDE]
    there = {(int(index % 390) * _SIDE, int(index // 390) * _SIDE) for index in filled}
    source = lambda x, y, width, height: whole[:height, :width] if (x, y) in there else None  # noqa: E731
    write_slide(path, source, size=(_HUGE, _HUGE), mpp=0.25, levels=(1, 4, 16, 64))
    child = context.Process(target=_read_huge, args=(path, sorted(there), around))
    child.start()
    child.join()
    if child.exitcode:
        raise ValueError(f"the process that measures memory ended with {child.exitcode}")
    return {"side": _HUGE, "what": "memory", "mb": around.get() / 1e6}


def _read_huge(path: Path, corners: list[tuple[int, int]], out: Any) -> None:
    before = _peak_bytes()
    slide = open_slide(path)
    read_thumbnail(slide, 2048)
    coordinates = np.array(corners) + 100
    spacing = {"patch": _SIDE, "side": _SIDE, "step": _SIDE, "mpp": 0.25, "slide_mpp": 0.25}
    grid = Grid(coordinates, np.ones(len(coordinates)), **spacing, width=_HUGE, height=_HUGE)  # type: ignore[arg-type]
    for _ in PatchReader(slide, grid):
        pass
    out.put(_peak_bytes() - before)


def _peak_bytes() -> int:
    """Most that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where `getrusage` counts what the parent process held, too
        found = [line.split() for line in status.read_text(encoding="ascii").splitlines()]
        return next(1024 * int(line[1]) for line in found if line[0] == "VmHWM:")
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
