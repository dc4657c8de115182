"""Settings of `regard train lvlm-demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .resuming import FREE
from .types import Checked, NonNegativeInt, PositiveFloat, PositiveInt

__all__ = ["TrainLvlmDemoSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainLvlmDemoSettings(Checked):
    """Train the small vision-language model that is bundled with the package, from scratch, on rendered scenes.

    Attributes:
        out: folder of results; the same command again resumes after the last finished stage.
        seed: seed of all random generators.
        workers: processes that share each batch, with one thread each.
        steps_scale: factor on the steps of every stage; 0.02 is a trial run.
        eval_scenes: held-out scenes to caption at the end.
        device: cpu or cuda; auto is cuda where it is available.
    """

    out: str = field(default="runs/lvlm-demo", metadata=FREE)
    seed: NonNegativeInt = 0
    workers: PositiveInt = field(default=2, metadata=FREE)
    steps_scale: PositiveFloat = 1.0
    eval_scenes: PositiveInt = 400
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=FREE)
