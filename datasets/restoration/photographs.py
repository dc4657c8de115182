"""Photographs bundled with scikit-image and scikit-learn: enough to train a small restorer and to try any.

Their licences, as documented there: astronaut, hubble and rocket are in the public domain; brick, camera, cat, coffee,
grass, gravel and retina CC0; coins and tissue without known restrictions; china and flower CC BY 2.0 (danielbuechele
and vultilion on Flickr); none is given for moon and page. None is copied into this package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import skimage.data
from jaxtyping import UInt8
from sklearn.datasets import load_sample_image

from ...class_names import choices

__all__ = ["HELD_OUT", "PHOTOGRAPHS", "TRAINING", "check_photograph", "photograph"]

#: Name -> function that reads it.
PHOTOGRAPHS: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": skimage.data.astronaut,
    "brick": skimage.data.brick,
    "camera": skimage.data.camera,
    "cat": skimage.data.cat,
    "china": lambda: load_sample_image("china.jpg"),
    "coffee": skimage.data.coffee,
    "coins": skimage.data.coins,
    "flower": lambda: load_sample_image("flower.jpg"),
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
    "hubble": skimage.data.hubble_deep_field,
    "moon": skimage.data.moon,
    "page": skimage.data.page,
    "retina": skimage.data.retina,
    "rocket": skimage.data.rocket,
    "tissue": skimage.data.immunohistochemistry,
}

#: Never seen by the embedded restorer in training.
HELD_OUT = ("astronaut", "cat", "coffee")

#: What it was trained on; not on retina, which is upscaled, nor on hubble, whose sky is noise.
TRAINING = tuple(name for name in PHOTOGRAPHS if name not in (*HELD_OUT, "hubble", "retina"))


def photograph(name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Read a photograph as RGB; grey ones have three equal channels.

    Args:
        name: one of `PHOTOGRAPHS`.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> photograph("cat").shape
        (300, 451, 3)
    """
    check_photograph(name)
    image = np.asarray(PHOTOGRAPHS[name]())
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3].copy()


def check_photograph(name: str) -> None:
    """Check that a photograph exists.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PHOTOGRAPHS:
        more = f"the others are {', '.join(PHOTOGRAPHS)}"
        raise ValueError(f"no photograph is called {name!r}; {choices(name, PHOTOGRAPHS, more)}")
