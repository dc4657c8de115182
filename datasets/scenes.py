"""Rendered scenes with known contents: 96 x 96 px, four to six things of 24 kinds, in one of four places.

In each place some things are common and some are rare, and things come in pairs that are often seen together (car and
traffic light). A model that learns from such scenes can pick up habits, such as naming the partner of an object; since
each scene knows its objects, their boxes and its place, habit and sight can be separated. The images are easy on
purpose: one thing in a cell of a 3 x 3 grid.

A scene follows from its split, the seed and its number alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from .sprites import EMOJI, resized_sprite

__all__ = [
    "CLASSES",
    "CONTEXTS",
    "IMAGE_PX",
    "PARTNER",
    "POPULAR",
    "SCENE_SPLITS",
    "Scene",
    "SceneObject",
    "Scenes",
    "draw_scene",
    "patch_classes",
    "pick",
    "render",
]

#: Height and width of an image.
IMAGE_PX = 96
GRID = 3
CELL_PX = IMAGE_PX // GRID
#: The kinds of things, in the order of their numbers.
CLASSES: tuple[str, ...] = tuple(EMOJI)
#: Place -> the six kinds at home there, from common to rare; neighbours (1-2, 3-4, 5-6) are partners.
CONTEXTS: dict[str, tuple[str, ...]] = {
    place: CLASSES[6 * index : 6 * index + 6] for index, place in enumerate(("kitchen", "street", "park", "room"))
}
#: Kind -> the one it is often seen with.
PARTNER: dict[str, str] = {name: CLASSES[index ^ 1] for index, name in enumerate(CLASSES)}
#: The two most common kinds of each place.
POPULAR: tuple[str, ...] = tuple(name for home in CONTEXTS.values() for name in home[:2])
#: Split -> its number. "train", "dev" and "natural" are drawn alike; in "counter" nothing is with its partner.
SCENE_SPLITS: dict[str, int] = {"train": 0, "dev": 1, "natural": 2, "counter": 3}

_COLOURS = {"kitchen": (150, 120, 95), "street": (125, 125, 130), "park": (120, 150, 100), "room": (165, 150, 140)}
_COUNTS, _COUNT_ODDS = (4, 5, 6), (0.40, 0.35, 0.25)
_PARTNER_RATE, _CONTEXT_RATE = 0.35, 0.35
_RANK_ODDS = tuple(1 / rank for rank in range(1, 7))
_SIDES = range(22, CELL_PX + 1, 2)
_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class SceneObject:
    """A thing in a scene.

    Attributes:
        name: its kind, one of `CLASSES`.
        box: left, top, right and bottom in px; square; right and bottom are the first px outside.
        mirrored: whether left and right are swapped.
    """

    name: str
    box: tuple[int, int, int, int]
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """What is in an image, known before it is drawn.

    Attributes:
        context: the place, one of `CONTEXTS`.
        objects: the things, each kind once.
        look: seed of everything else that is to be seen: light, colours, noise.

    Example:
        >>> scene = Scenes("natural", 10)[3]
        >>> scene.context, scene.names
        ('kitchen', ('pizza', 'knife', 'dog', 'kite'))
        >>> scene.image().size
        (96, 96)
    """

    context: str
    objects: tuple[SceneObject, ...]
    look: int

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds of things that are there."""
        return tuple(thing.name for thing in self.objects)

    def image(self) -> Image.Image:
        """The scene as a Pillow image, always the same pixels."""
        return Image.fromarray(render(self))


class Scenes(Sequence[Scene]):
    """A set of scenes, made on access.

    Args:
        split: one of `SCENE_SPLITS`. Scenes of different splits are drawn independently.
        count: how many there are.
        seed: of all of them, 0 or more.

    Raises:
        ValueError: no such split, or a negative number.

    Example:
        >>> counter = Scenes("counter", 100)
        >>> any(PARTNER[name] in scene.names for scene in counter for name in scene.names)
        False
    """

    def __init__(self, split: str, count: int, seed: int = 0) -> None:
        if split not in SCENE_SPLITS:
            raise ValueError(f"there are no scenes called {split!r}; known: {', '.join(SCENE_SPLITS)}")
        if count < 0 or seed < 0:
            raise ValueError(f"count is {count} and seed is {seed}; neither can be negative")
        self.split, self.length, self.seed = split, count, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:  # type: ignore[override]
        row = index + self.length if index < 0 else index
        if not 0 <= row < self.length:
            raise IndexError(f"there are {self.length} scenes, none has the number {index}")
        rng = np.random.default_rng([self.seed, SCENE_SPLITS[self.split], row])
        return draw_scene(rng, partners=self.split != "counter")

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(self.length))

    def __repr__(self) -> str:
        return f"Scenes({self.split!r}, {self.length}, seed={self.seed})"


def draw_scene(rng: np.random.Generator, *, partners: bool = True) -> Scene:
    """Draw a scene at random: a place, what is in it, and where.

    The first thing is at home in the place, the common ones more often (1 / rank). Each later one is with 0.35 the
    partner of one that is there, with 0.35 at home in the place, else any; so the partner of a thing is there in
    about 0.6 of all cases.

    Args:
        rng: random generator; the only source of randomness.
        partners: whether partners may be there together.
    """
    context = pick(rng, tuple(CONTEXTS))
    names = [pick(rng, CONTEXTS[context], _RANK_ODDS)]
    count = pick(rng, _COUNTS, _COUNT_ODDS)
    while len(names) < count:
        draw = rng.random()
        if partners and draw < _PARTNER_RATE:
            name = PARTNER[pick(rng, names)]
        elif draw < _PARTNER_RATE + _CONTEXT_RATE:
            name = pick(rng, CONTEXTS[context], _RANK_ODDS)
        else:
            name = pick(rng, CLASSES)
        if name not in names and (partners or PARTNER[name] not in names):
            names.append(name)
    cells = rng.permutation(GRID * GRID)[:count]
    objects = []
    for name, cell in zip(names, cells.tolist(), strict=True):
        side = pick(rng, _SIDES)
        top, left = (CELL_PX * start + int(rng.integers(CELL_PX - side, endpoint=True)) for start in divmod(cell, GRID))
        objects.append(SceneObject(name, (left, top, left + side, top + side), bool(rng.random() < 0.5)))
    return Scene(context, tuple(objects), int(rng.integers(2**62)))


def render(scene: Scene) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a scene: the place as a colour with clouds, a slope of light and noise, then the things over it.

    Example:
        >>> render(Scene("park", (), look=0)).shape
        (96, 96, 3)
    """
    rng = np.random.default_rng(scene.look)
    noise = rng.standard_normal((1 + 6 * 6 + 2, 3), np.float32)
    base = np.asarray(_COLOURS[scene.context], np.float32) + 12 * noise[0]
    spread = _spread()
    clouds = spread @ (0.7 * 22 * noise[1:37]).reshape(6, 18)  # height, 6 columns of 3 colours
    clouds = np.einsum("xj,yjc->yxc", spread, clouds.reshape(IMAGE_PX, 6, 3), optimize=True)
    slope = np.linspace(-15, 15, IMAGE_PX, dtype=np.float32)[:, None, None] * noise[37, 0]
    canvas = base + clouds + slope
    start = int(rng.integers(_noise().size - canvas.size))
    for thing in scene.objects:
        left, top, right, bottom = thing.box
        colours, opacity = resized_sprite(thing.name, right - left, thing.mirrored)
        opacity = opacity * np.float32(1 - 0.1 * rng.random())
        light = np.float32(rng.uniform(0.8, 1.1))
        tint = 6 * rng.standard_normal(3, np.float32)
        under = canvas[top:bottom, left:right]
        under += opacity * (colours * light + tint - under)
    canvas += 5 * _noise()[start : start + canvas.size].reshape(canvas.shape)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def patch_classes(scene: Scene, patch_px: int) -> Int[np.ndarray, "rows columns"]:
    """What each patch of the image belongs to: the number of the class whose cell it lies in, 24 for background.

    Args:
        scene: a scene of the 3 x 3 grid, as `Scenes` makes them.
        patch_px: side of a patch, a divisor of 32 px, the side of a cell.

    Raises:
        ValueError: a cell does not consist of whole patches.

    Example:
        >>> thing = SceneObject("knife", (0, 32, 32, 64))
        >>> patch_classes(Scene("park", (thing,), 0), 32).tolist()
        [[24, 24, 24], [1, 24, 24], [24, 24, 24]]
    """
    if patch_px < 1 or CELL_PX % patch_px:
        raise ValueError(f"patch_px is {patch_px}; a cell of {CELL_PX} px is to consist of whole patches")
    cells = np.full((GRID, GRID), len(CLASSES))
    for thing in scene.objects:
        cells[thing.box[1] // CELL_PX, thing.box[0] // CELL_PX] = CLASSES.index(thing.name)
    each = CELL_PX // patch_px
    return cells.repeat(each, axis=0).repeat(each, axis=1)


def pick(rng: np.random.Generator, choices: Sequence[_Choice], odds: Sequence[float] | None = None) -> _Choice:
    """One of the choices at random.

    Args:
        rng: random generator.
        choices: at least one.
        odds: how likely each is, in any unit. Default: all alike.
    """
    if odds is None:
        return choices[int(rng.integers(len(choices)))]
    sums = list(accumulate(odds))
    mark = rng.random() * sums[-1]
    return next(choice for choice, upto in zip(choices, sums, strict=True) if mark < upto)


@lru_cache(maxsize=1)
def _spread() -> Float[np.ndarray, "pixels 6"]:
    """The matrix that makes a smooth row of 96 px of six values, bicubic."""
    unit = Image.fromarray(np.eye(6, dtype=np.float32))
    return np.asarray(unit.resize((6, IMAGE_PX), Image.Resampling.BICUBIC))


@lru_cache(maxsize=1)
def _noise() -> Float[np.ndarray, " values"]:
    """Standard normal values to take stretches of, which is quicker than drawing new ones."""
    return np.random.default_rng(0).standard_normal(1 << 20, np.float32)
