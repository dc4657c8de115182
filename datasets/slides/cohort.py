"""A cohort of slides rendered from real textures, with known lesions, for demonstrations and tests.

The tissue of a slide consists of crops of 40 um of the embedded H&E slide, rotated and tiled into a random shape. Half
of the slides have lesions: areas whose crops come from another H&E image, of dense large nuclei, matched to the tissue
in the mean amounts of both stains, so that the mean colour is not informative. Stains vary from slide to slide, and a
fifth of the slides have a pen mark. Test slides use other parts of both images than training slides.

This is no evidence about patients: there are two sources of texture, and a lesion is by construction the second.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from .textures import CROP_PX, STAINS, Part, Textures, amounts_of, load_textures, real_bands, stained
from .writing import write_slide

__all__ = ["MASK_STEP", "RenderedSlide", "render_slide", "write_cohort", "write_real"]

#: Microns per pixel of rendered slides.
MPP = 0.5
#: Pixels of a slide that one pixel of its mask spans.
MASK_STEP = 8
_OVERLAP = 16
_PENS = ((30, 60, 160), (20, 130, 80), (25, 25, 30))


@dataclass(frozen=True, eq=False)
class RenderedSlide:
    """A slide with its ground truth.

    Attributes:
        name: of the slide.
        pixels: at 0.5 um/px.
        tissue: mask of the tissue, one value for 8 x 8 pixels.
        lesion: mask of the lesions, likewise; empty for a normal slide.
        pen: whether it has a pen mark.
    """

    name: str
    pixels: UInt8[np.ndarray, "height width 3"]
    tissue: Bool[np.ndarray, "rows columns"]
    lesion: Bool[np.ndarray, "rows columns"]
    pen: bool

    @property
    def label(self) -> str:
        """The true class: lesion or normal."""
        return "lesion" if self.lesion.any() else "normal"

    def mask(self) -> UInt8[np.ndarray, "rows columns"]:
        """0 background, 128 tissue, 255 lesion."""
        return (self.tissue * 128 + self.lesion * 127).astype(np.uint8)


def render_slide(number: int, part: Part = "train", *, size: tuple[int, int] | None = None) -> RenderedSlide:
    """Render one slide of the cohort; deterministic in number and part.

    Args:
        number: from 0; odd numbers have lesions.
        part: whose textures are used.
        size: width and height in pixels, multiples of 8, at least 512; by default random, from 1,536 to 2,304.

    Raises:
        ValueError: a size is too small or not a multiple of 8.

    Example:
        >>> slide = render_slide(1, "test", size=(512, 512))
        >>> slide.label, slide.pixels.shape, slide.lesion.shape
        ('lesion', (512, 512, 3), (64, 64))
    """
    random = np.random.default_rng([number, {"train": 0, "test": 1}[part]])
    width, height = (int(side) for side in random.integers(192, 289, 2) * MASK_STEP) if size is None else size
    if min(width, height) < 512 or width % MASK_STEP or height % MASK_STEP:
        raise ValueError(f"a slide is at least 512 pixels wide and high, in multiples of 8, not {width} x {height}")
    rows, columns = height // MASK_STEP, width // MASK_STEP
    tissue = _tissue_mask(random, rows, columns, share=random.uniform(0.3, 0.5))
    lesion = np.zeros_like(tissue)
    if number % 2:
        inside = cv2.erode(tissue.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        lesion = _lesion_mask(random, inside, share=random.uniform(0.02, 0.2))
    amounts = _tile_textures(random, load_textures(part), tissue, lesion)
    pixels, pen = _render(random, amounts, tissue)
    return RenderedSlide(f"{part}_{number:03d}", pixels, tissue, lesion, pen)


def write_cohort(folder: str | Path, part: Part, count: int, *, first: int = 0) -> Iterator[Path]:
    """Write slides as Aperio pyramids, their masks, and finally labels.csv.

    Existing slides are kept. A mask is NAME_mask.png: 0 background, 128 tissue, 255 lesion, one pixel for 8 x 8 of the
    slide. labels.csv has slide_id, case_id and label.

    Args:
        folder: to write to; it is made.
        part: train or test.
        count: how many slides.
        first: number of the first.

    Yields:
        The file of each slide.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        name = f"{part}_{number:03d}"
        file, mask = target / f"{name}.svs", target / f"{name}_mask.png"
        if not file.is_file():  # the mask is written first
            slide = render_slide(number, part)
            Image.fromarray(slide.mask()).save(mask)
            write_slide(file, slide.pixels, mpp=MPP, objective=20.0, levels=(1, 4))
        yield file
    _write_labels(target)


def write_real(folder: str | Path, part: Part, *, views: int = 1) -> list[Path]:
    """Write the bands of the real slide that belong to a part as separate slides, labelled normal.

    They are used in training because rendered tissue, tiled from small crops, does not cover what tissue looks like.

    Args:
        folder: as in `write_cohort`; labels.csv is updated.
        part: train or test.
        views: number of augmented versions of each band, at least 1; all but the first are flipped, shifted and stained
            differently.

    Returns:
        The files; one of the four bands, with little tissue, is skipped.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for number, pixels in enumerate(real_bands(part)):
        amounts = amounts_of(pixels)
        if (amounts.sum(-1) > 0.25).mean() < 0.2:
            continue
        for view in range(views):
            files.append(target / f"{part}_real_{number}{view}.svs")
            if view:
                random = np.random.default_rng([number, view])
                flipped = amounts[:: 1 - 2 * (view & 1), :: 1 - (view & 2)][view * 16 :, view * 24 :]
                flipped = flipped * random.uniform(0.8, 1.2, 2).astype(np.float32)
                pixels = stained(flipped, STAINS + random.normal(0, 0.025, STAINS.shape)).round().astype(np.uint8)
            if not files[-1].is_file():
                write_slide(files[-1], pixels, mpp=MPP, objective=20.0, levels=(1, 4))
    _write_labels(target)
    return files


def _write_labels(folder: Path) -> None:
    """Write labels.csv of all slides in a folder; rendered slides with odd numbers have lesions."""
    rows = [("slide_id", "case_id", "label")]
    for name in sorted(file.stem for file in folder.glob("*.svs")):
        lesion = "real" not in name and int(name.rpartition("_")[2]) % 2
        case = name[:-1] if "real" in name else name  # views of a band belong to one patient
        rows.append((name, case, "lesion" if lesion else "normal"))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows(rows)


def _random_field(
    random: np.random.Generator, rows: int, columns: int, grain: int
) -> Float[np.ndarray, "rows columns"]:
    """A smooth random field with features about `grain` cells wide, mean 0 and standard deviation 1."""
    coarse = random.normal(size=(max(4, round(rows / grain)) + 3, max(4, round(columns / grain)) + 3))
    field = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def _tissue_mask(
    random: np.random.Generator, rows: int, columns: int, *, share: float
) -> Bool[np.ndarray, "rows columns"]:
    """A mask of tissue, away from the edge of the slide."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    field = _random_field(random, rows, columns, 45) + 0.15 * _random_field(random, rows, columns, 6)
    field -= 3 * np.maximum(np.abs(y), np.abs(x)) ** 4
    return field > np.quantile(field, 1 - share)


def _lesion_mask(
    random: np.random.Generator, inside: Bool[np.ndarray, "rows columns"], *, share: float
) -> Bool[np.ndarray, "rows columns"]:
    """A mask of one to three lesions, which cover a share of the tissue."""
    rows, columns = inside.shape
    cells = np.argwhere(inside)
    chosen = cells[random.integers(len(cells), size=random.integers(1, 4))]
    y, x = np.mgrid[:rows, :columns]
    near = np.min([np.hypot(y - row, x - column) for row, column in chosen], axis=0)
    field = np.where(inside, near + 4 * _random_field(random, rows, columns, 12), np.inf)
    return field <= np.sort(field[inside])[max(0, round(share * inside.sum()) - 1)]


def _tile_textures(
    random: np.random.Generator,
    textures: Textures,
    tissue: Bool[np.ndarray, "rows columns"],
    lesion: Bool[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "height width 2"]:
    """Amounts of stain: crops of texture, tiled with soft borders, where there is tissue."""
    height, width = tissue.shape[0] * MASK_STEP, tissue.shape[1] * MASK_STEP
    kinds = _random_field(random, tissue.shape[0], tissue.shape[1], 20)
    order = np.argsort(np.argsort(kinds, axis=None)).reshape(kinds.shape) / kinds.size  # uniform in 0-1
    ramp = np.clip((np.arange(CROP_PX) + 0.5) / _OVERLAP, 0, 1)
    ramp = np.minimum(ramp, ramp[::-1])
    weight = np.outer(ramp, ramp).astype(np.float32)[..., None]
    layers = []
    for wanted, library in ((tissue & ~lesion, textures.tissue), (lesion, textures.lesion)):
        total = np.zeros((height + CROP_PX, width + CROP_PX, 2), np.float32)
        weights = np.full((height + CROP_PX, width + CROP_PX, 1), 1e-6, np.float32)
        near = cv2.dilate(wanted.astype(np.uint8), np.ones((23, 23), np.uint8))
        for top in range(0, height, CROP_PX - _OVERLAP):
            for left in range(0, width, CROP_PX - _OVERLAP):
                cell = (
                    min(tissue.shape[0] - 1, (top + CROP_PX // 2) // 8),
                    min(tissue.shape[1] - 1, (left + CROP_PX // 2) // 8),
                )
                if not near[cell]:
                    continue
                if library is textures.tissue:  # regions of connective tissue and of epithelium
                    which = int(np.clip(order[cell] + random.normal(0, 0.08), 0, 0.999) * len(library))
                else:
                    which = int(random.integers(len(library)))
                crop = np.rot90(library[which], int(random.integers(4)))
                crop = crop[:, ::-1] if random.random() < 0.5 else crop
                total[top : top + CROP_PX, left : left + CROP_PX] += crop * weight
                weights[top : top + CROP_PX, left : left + CROP_PX] += weight
        layers.append((total / weights)[:height, :width])
    soft = [_soften(random, mask, height, width) for mask in (tissue, lesion)]
    return soft[0] * (layers[0] * (1 - soft[1]) + layers[1] * soft[1])


def _soften(
    random: np.random.Generator, mask: Bool[np.ndarray, "rows columns"], height: int, width: int
) -> Float[np.ndarray, "height width 1"]:
    """A mask at full resolution with an irregular soft border, 0-1."""
    large = cv2.resize(cv2.blur(mask.astype(np.float32), (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    fray = cv2.resize(random.normal(0, 0.25, (height // 4, width // 4)).astype(np.float32), (width, height))
    return cv2.blur(((large + fray * (large > 0.02) * (large < 0.98)) > 0.5).astype(np.float32), (3, 3))[..., None]


def _render(
    random: np.random.Generator, amounts: Float[np.ndarray, "height width 2"], tissue: Bool[np.ndarray, "rows columns"]
) -> tuple[UInt8[np.ndarray, "height width 3"], bool]:
    """Render pixels: stain vectors of this slide, uneven thickness, focus, noise, and possibly a pen mark."""
    height, width = amounts.shape[:2]
    stains = STAINS + random.normal(0, 0.025, STAINS.shape)
    amounts = amounts * random.uniform(0.8, 1.2, 2).astype(np.float32)
    thick = cv2.resize(
        _random_field(random, tissue.shape[0], tissue.shape[1], 25), (width, height), interpolation=cv2.INTER_LINEAR
    )
    amounts *= (1 + 0.08 * thick.astype(np.float32))[..., None]
    pixels: Any = stained(amounts, stains, random.uniform(238, 248)).astype(np.float32)
    pixels = cv2.GaussianBlur(pixels, (0, 0), float(random.uniform(0.45, 0.8)))
    pixels += random.normal(0, 1.5, pixels.shape).astype(np.float32)
    image = np.clip(pixels, 0, 255).round().astype(np.uint8)
    pen = bool(random.random() < 0.2)
    if pen:
        points = random.uniform(0.05, 0.95, (4, 2)) * (width, height)
        along = np.linspace(0, 1, 60)[:, None]
        curve = (1 - along) ** 3 * points[0] + along**3 * points[3]
        curve += 3 * along * (1 - along) * ((1 - along) * points[1] + along * points[2])
        colour = _PENS[random.integers(len(_PENS))]
        ink = np.full_like(image, 255)
        cv2.polylines(ink, [curve.round().astype(np.int32)], False, colour, int(random.integers(18, 40)), cv2.LINE_AA)
        image = (image.astype(np.float32) * (0.15 + 0.85 * ink / 255)).round().astype(np.uint8)
    return image, pen
