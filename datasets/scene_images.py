"""Rendered scenes as labelled images: one large thing among small ones, 24 classes, colour, without a download.

The label is the kind of the large thing. It is at home in the place in three of four images, so that the background
helps but does not suffice, and up to three small things of other kinds stand about, so that looking at the right spot
pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .labelled_images import LabelledImages
from .scenes import CLASSES, CONTEXTS, IMAGE_PX, Scene, SceneObject, pick, render

__all__ = ["SingleScenes", "open_scene_images"]

#: Images of each split; every class has as many.
COUNTS = {"train": 4800, "val": 480, "test": 960}
_SEED = 0  # never the user's: numbers of different runs are about the same images
_STREAM = 30  # differs from that of the captioned scenes
_HOME_RATE = 0.75
_LARGE_PX, _SMALL_PX = range(40, 65, 2), range(16, 23, 2)
_TRIES = 12


def open_scene_images() -> dict[str, LabelledImages]:
    """Open the scenes: 4,800 to train, 480 to validate, 960 to test, 96 x 96 px in colour, the same for everybody.

    Images are drawn on access, in a third of a millisecond.

    Example:
        >>> parts = open_scene_images()
        >>> image, target = parts["test"][30]
        >>> image.size, parts["test"].classes[target]
        ((96, 96), 'car')
    """
    return {
        split: LabelledImages(
            SingleScenes(number, count), np.arange(count) % len(CLASSES), CLASSES, channels=3, origin=f"scenes {split}"
        )
        for number, (split, count) in enumerate(COUNTS.items())
    }


class SingleScenes(Sequence[Any]):
    """Images of one large thing each, whose class is the number of the image modulo 24.

    Args:
        split: number of the split.
        count: how many images there are.
    """

    def __init__(self, split: int, count: int) -> None:
        self.split, self.images = split, count

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: Any) -> Any:
        row = int(index)
        if not 0 <= row < self.images:
            raise IndexError(f"there are {self.images} images, none has the number {index}")
        return render(self.scene(row))

    def scene(self, index: int) -> Scene:
        """What is in an image; the large thing comes last."""
        rng = np.random.default_rng([_SEED, _STREAM, self.split, index])
        name = CLASSES[index % len(CLASSES)]
        home = next(place for place, kinds in CONTEXTS.items() if name in kinds)
        context = home if rng.random() < _HOME_RATE else pick(rng, tuple(CONTEXTS))
        large = _placed(rng, name, pick(rng, _LARGE_PX))
        others: list[SceneObject] = []
        for _ in range(int(rng.integers(4))):
            kind = pick(rng, [other for other in CLASSES if other != name])
            for _ in range(_TRIES):
                small = _placed(rng, kind, pick(rng, _SMALL_PX))
                if not any(_overlap(small, thing) for thing in (large, *others)):
                    others.append(small)
                    break
        return Scene(context, (*others, large), int(rng.integers(2**62)))


def _placed(rng: np.random.Generator, name: str, side: int) -> SceneObject:
    left, top = rng.integers(IMAGE_PX - side, size=2, endpoint=True).tolist()
    return SceneObject(name, (left, top, left + side, top + side), bool(rng.random() < 0.5))


def _overlap(one: SceneObject, other: SceneObject) -> bool:
    (left, top, right, bottom), (west, north, east, south) = one.box, other.box
    return left < east and west < right and top < south and north < bottom
