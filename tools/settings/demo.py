"""Settings of `regard demo`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DemoSettings"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Train a small ViT with a swapped attention beside its softmax twin on real digits.

    Attributes:
        attention: block that is compared with softmax.
        out: folder of results; the same command again goes on where it was stopped.
        epochs: passes over the training images.
        seed: seed of everything by chance.
    """

    attention: str = "van"
    out: str = "runs/demo"
    epochs: int = 60
    seed: int = 0
