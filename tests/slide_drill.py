"""Tiny slides, good and bad, an encoder and heads, for the tests of `regard slide`; pytest finds it by `pythonpath`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import timm
import torch
from jobs import run
from PIL import Image

from regard.datasets.slides.writing import write_slide
from regard.heads.trained_head import TrainedHead, save_trained_head

GOOD = ("one", "two", "näme with späces")
#: Bad slide -> what its reason says.
BAD = {
    "truncated": "truncated",
    "text": "text",
    "white": "no tissue",
    "unscaled": "microns per pixel",
    "dot": "microns per pixel",
}
#: What makes a run take a second.
FEW = ["--page_px", "512", "--top", "2", "--batch_size", "16"]


def tissue(seed: int, side: int = 640) -> np.ndarray:
    """A blob of speckled pink on white."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 244, np.uint8)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    inside = rows**2 + (columns * (1 + 0.2 * seed)) ** 2 < 0.11
    pixels[inside] = rng.normal((200, 120, 170), 22, (int(inside.sum()), 3)).clip(0, 255)
    return pixels


def write_slides(folder: Path, *, bad: bool = True) -> Path:
    """The good slides, and a slide for each thing that can be wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    own: dict[str, Any] = {"mpp": 0.5, "objective": 20.0, "levels": (1, 4), "tile": 64}
    for seed, name in enumerate(GOOD):
        write_slide(folder / f"{name}.svs", tissue(seed), **own)
    if not bad:
        return folder
    content = (folder / "one.svs").read_bytes()
    (folder / "truncated.svs").write_bytes(content[: len(content) // 3])
    (folder / "text.svs").write_text("This is a text file that was renamed.\n" * 40)
    write_slide(folder / "white.svs", np.full((640, 640, 3), 244, np.uint8), **own)
    write_slide(folder / "unscaled.tif", tissue(1), levels=(1, 4), kind="generic", tile=64)
    Image.new("RGB", (1, 1), "purple").save(folder / "dot.png")
    write_slide(folder / "one bad tile.svs", tissue(2), **own)
    damage_tile(folder / "one bad tile.svs", 45)
    return folder


def damage_tile(slide: Path, number: int) -> None:
    """Overwrite one tile of full resolution."""
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        start, length = page.dataoffsets[number], page.databytecounts[number]
    with slide.open("r+b") as file:
        file.seek(start)
        file.write(b"\x00" * length)


def write_models(folder: Path) -> list[str]:
    """An encoder for patches of 32 pixels, heads of two folds, and the words that name them."""
    torch.manual_seed(0)
    vit = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 0}
    encoder = timm.create_model("vit_tiny_patch16_224", **vit)
    timm.models.save_for_hf(encoder, folder / "encoder", safe_serialization=True, model_args=vit)
    for fold in range(2):
        head = TrainedHead("acmil", 24, ["normal", "tumour"], {"width": 16})
        save_trained_head(head, folder / "heads" / "runs" / "acmil" / f"fold_{fold}_seed_0" / "model")
    words = ["--encoder", folder / "encoder", "--head", folder / "heads", "--patch", "32", "--mpp", "0.5"]
    return [*map(str, words), *FEW]


def results(out: Path, names: tuple[str, ...] = GOOD) -> dict[str, bytes]:
    """Everything of some slides that must not depend on what happened on the way: file -> contents."""
    found = {}
    for name in names:
        for path in sorted(out.rglob(f"{name}*")):
            folder = path.relative_to(out).parts[0]
            if not path.is_file() or folder in ("stages", "slides", "locks"):
                continue  # seconds are in them
            if path.suffix == ".h5":
                with h5py.File(path) as file:
                    values = [file[key][:].tobytes() for key in ("coords", "features") if key in file]
                found[str(path.relative_to(out))] = b"".join(values)
            else:
                found[str(path.relative_to(out))] = path.read_bytes()
    return found


def fork(*words: str | Path, before: Callable[[], None] = lambda: None) -> multiprocessing.process.BaseProcess:
    """A `regard` command in a copy of this process, which starts at once."""

    def child() -> None:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
        before()
        os._exit(run(*words))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process
