"""Pipelines of albumentations from plain data, such as a list in a YAML file."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..class_names import choices

__all__ = ["AlbumentationsList"]

_MORE = "see the documentation of albumentations 2.0.8"


class AlbumentationsList:
    """Apply transforms of albumentations in sequence to a Pillow image.

    They are seeded by Python's global generator: the same state gives the same image.

    Args:
        entries: each is the name of a transform, or a mapping of one name to its arguments. `OneOf`,
            `SomeOf`, `Sequential` and the like take such a list as `transforms`. Names are looked up in
            albumentations only.

    Raises:
        ValueError: no transform has the name, it does not take an argument, or (when called) it changes the
            size, the channels or the type of the image.

    Example:
        >>> from PIL import Image
        >>> blurred = AlbumentationsList([{"OneOf": {"transforms": ["Blur", {"MotionBlur": {"p": 1.0}}]}}])
        >>> blurred(Image.new("RGB", (20, 10))).size
        (20, 10)
    """

    def __init__(self, entries: Any) -> None:
        self.entries = entries
        self.pipeline = _library().Compose([_build(entry) for entry in _as_list(entries)])

    def __call__(self, image: Image.Image) -> Image.Image:
        """Apply the pipeline; size and mode stay."""
        pixels = np.array(image)
        values = pixels[..., None] if pixels.ndim == 2 else pixels
        seed = random.getrandbits(64)
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        changed = self.pipeline(image=values)["image"]
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.size != values.size:
            what = f"{getattr(changed, 'dtype', type(changed).__name__)} of shape {tuple(np.shape(changed))}"
            raise ValueError(
                f"the albumentations list turns an image of shape {values.shape} into {what}; omit transforms "
                "that crop, resize, normalise or make tensors, since that is done elsewhere"
            )
        if changed.shape[:2] != values.shape[:2]:
            raise ValueError(
                f"the albumentations list turns height x width {values.shape[:2]} into {changed.shape[:2]}"
            )
        return Image.fromarray(changed.reshape(pixels.shape))

    def __repr__(self) -> str:
        return f"AlbumentationsList({self.entries!r})"


def _library() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise it looks for updates when imported
    import albumentations  # type: ignore[import-untyped]

    return albumentations


def _as_list(entries: Any) -> Sequence[Any]:
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
        raise ValueError(f"expected a list of albumentations, got {entries!r}")
    return entries


def _build(entry: Any) -> Any:
    library = _library()
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"expected the name of a transform, or one name with its arguments, got {entry!r}")
    (name, arguments), *_ = entry.items()
    known = _transforms()
    if name not in known:
        raise ValueError(f"albumentations has no transform {name!r}; {choices(str(name), known, _MORE)}")
    cls = known[name]
    arguments = dict(arguments or {})
    if issubclass(cls, library.BaseCompose):
        arguments["transforms"] = [_build(inner) for inner in _as_list(arguments.get("transforms", []))]
    accepted = list(inspect.signature(cls).parameters)
    for key in arguments:
        if key not in accepted:
            raise ValueError(f"albumentations {name} has no argument {key!r}; {choices(key, accepted, _MORE)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return cls(**arguments)
    except (TypeError, ValueError, UserWarning) as error:
        raise ValueError(f"albumentations {name} does not accept {arguments!r}: {_short(error)}") from error


def _transforms() -> dict[str, type]:
    library = _library()
    bases = (library.BasicTransform, library.BaseCompose)
    abstract = {*bases, library.DualTransform, library.ImageOnlyTransform, library.NoOp, library.Lambda}
    return {
        name: value
        for name, value in vars(library).items()
        if inspect.isclass(value) and issubclass(value, bases) and value not in abstract and not name.startswith("_")
    }


def _short(error: Exception) -> str:
    """Put the message on one line, without the links of pydantic."""
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("For further information"))
