"""Settings of `regard demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["DemoSettings"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Train a small ViT with a swapped attention beside its softmax twin; or `demo mil`, five heads on bags.

    Attributes:
        what: digits, or mil for multiple-instance heads on real tissue and on rendered bags.
        attention: of digits: block that is compared with softmax.
        out: folder of results; the same command again goes on where it was stopped.
        epochs: passes over the training data; null is what each recipe has.
        seed: seed of everything by chance.
    """

    what: Literal["digits", "mil"] = field(
        default="digits", metadata={"word": "digits (default), or mil: multiple-instance heads"}
    )
    attention: str = "van"
    out: str = "runs/demo"
    epochs: int | None = None
    seed: int = 0
