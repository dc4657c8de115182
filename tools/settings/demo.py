"""Settings of `regard demo`, a class a task."""

from __future__ import annotations

from dataclasses import dataclass

from .types import Checked, NonNegativeInt, PositiveInt

__all__ = ["DemoClassifierSettings", "DemoMilSettings", "DemoRestorationSettings"]


@dataclass(frozen=True, kw_only=True)
class DemoClassifierSettings(Checked):
    """Train a small ViT with a swapped attention and its softmax twin, on handwritten digits.

    Attributes:
        attention: block that is compared with softmax attention.
        epochs: passes over the training data; by default that of the recipe.
        seed: random seed.
        out: folder of results; the same command resumes a stopped run.
    """

    attention: str = "van"
    epochs: PositiveInt | None = None
    seed: NonNegativeInt = 0
    out: str = "runs/demo"


@dataclass(frozen=True, kw_only=True)
class DemoMilSettings(Checked):
    """Train multiple-instance heads on real tissue, and on rendered bags with a shortcut.

    Attributes:
        epochs: passes over the training data; by default that of each recipe.
        seed: random seed.
        out: folder of results; the same command resumes a stopped run.
    """

    epochs: PositiveInt | None = None
    seed: NonNegativeInt = 0
    out: str = "runs/demo"


@dataclass(frozen=True, kw_only=True)
class DemoRestorationSettings(Checked):
    """Double the size of photographs that the embedded restorer never saw.

    Attributes:
        out: folder of results.
    """

    out: str = "runs/demo"
