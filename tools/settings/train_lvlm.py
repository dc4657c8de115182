"""Settings of `regard train-lvlm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TrainLvlmSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainLvlmSettings:
    """Train the small vision-language model that comes with the package, from nothing, on rendered scenes.

    Attributes:
        out: folder of results; the same command again goes on after the last stage that was finished.
        seed: seed of everything by chance.
        workers: processes that share each batch, with one thread each.
        steps_scale: factor on the steps of every stage; 0.02 is a trial run.
        eval_scenes: held-out scenes to caption at the end.
        device: cpu or cuda; auto is cuda where it is to be had.
    """

    out: str = "runs/train-lvlm"
    seed: int = 0
    workers: int = 2
    steps_scale: float = 1.0
    eval_scenes: int = 400
    device: Literal["auto", "cpu", "cuda"] = "auto"
