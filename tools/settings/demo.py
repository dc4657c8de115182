"""Settings of `regard demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["DemoSettings"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Train a small ViT beside its softmax twin; or `demo mil`, heads on bags; or `demo restoration`, photographs.

    Attributes:
        what: digits; mil for multiple-instance heads on real tissue and on rendered bags; or restoration, which doubles
            photographs.
        attention: of digits: block that is compared with softmax.
        out: folder of results; the same command again goes on where it was stopped.
        epochs: passes over the training data; null is what each recipe has.
        seed: seed of everything by chance.
    """

    what: Literal["digits", "mil", "restoration"] = field(
        default="digits",
        metadata={"word": "digits (default), mil: multiple-instance heads, or restoration: photographs"},
    )
    attention: str = "van"
    out: str = "runs/demo"
    epochs: int | None = None
    seed: int = 0
