"""Photographs that come with scikit-image and scikit-learn: enough to train a small restorer and to try any.

What these say of them: astronaut, hubble and rocket are in the public domain; brick, camera, cat, coffee, grass, gravel
and retina CC0; coins and tissue without known restrictions; china and flower CC BY 2.0 (danielbuechele and vultilion on
Flickr); of moon and page nothing. None is copied into this package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import skimage.data
from jaxtyping import UInt8
from sklearn.datasets import load_sample_image

__all__ = ["HELD_OUT", "PHOTOGRAPHS", "TRAINING", "photograph"]

#: Name -> what reads it.
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

#: What the embedded restorer never saw.
HELD_OUT = ("astronaut", "cat", "coffee")

#: What it learnt from; retina is blown up and the sky of hubble noise, so neither teaches it anything.
TRAINING = tuple(name for name in PHOTOGRAPHS if name not in (*HELD_OUT, "hubble", "retina"))


def photograph(name: str) -> UInt8[np.ndarray, "height width 3"]:
    """One of the photographs as RGB; grey ones have three equal channels.

    Args:
        name: one of `PHOTOGRAPHS`.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> photograph("cat").shape
        (300, 451, 3)
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"no photograph is called {name!r}; there are {', '.join(PHOTOGRAPHS)}")
    image = np.asarray(PHOTOGRAPHS[name]())
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3].copy()
