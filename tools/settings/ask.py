"""Settings of `regard ask` and `regard sinks`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from .lvlm import LvlmSettings
from .names import InterventionText
from .types import Exists, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

__all__ = ["AskSettings", "ImagePath", "SinksSettings"]

#: An image file, or the example that is bundled with the embedded model.
ImagePath = Annotated[str, Exists("file", names=("example",))]


@dataclass(frozen=True, kw_only=True)
class AskSettings(LvlmSettings):
    """Ask a vision-language model about an image, with and without interventions, and plot its attention.

    Attributes:
        image: image file; example is bundled with the embedded model.
        question: question about the image.
        fix: interventions to use together, such as 'var,vhr(alpha=1.5)'; repeat --fix for further answers. The exit
            code is 1 if one of them had no effect.
        max_new_tokens: maximum length of an answer in tokens.
        temperature: 0 decodes greedily; above 0, tokens are sampled.
        beams: width of the beam search; above 1, no attention is plotted.
        seed: random seed of the sampling.
        out: folder for attention.png and answers.json, or a .png file for the plot alone.
        json: print the answers as JSON.
    """

    image: ImagePath = field(metadata={"positional": True})
    question: str = field(metadata={"positional": True})
    fix: list[InterventionText] = field(default_factory=list, metadata={"repeated": True})
    out: str = "runs/ask"
    max_new_tokens: PositiveInt = 64
    temperature: NonNegativeFloat = 0.0
    beams: PositiveInt = 1
    seed: NonNegativeInt = 0
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class SinksSettings(LvlmSettings):
    """Find the hidden dimensions that identify a model's attention sinks, which the intervention var needs.

    Attributes:
        images: a few different image files.
        question: prompt that is used with every image.
        threshold: smallest activation of a sink, relative to the root of the model's width; by default the model's
            own, or 20.
        json: print the result as JSON.
    """

    images: list[ImagePath] = field(metadata={"positional": True})
    question: str = "describe the image in detail ."
    threshold: PositiveFloat | None = None
    json: bool = False
