"""Settings of `regard ask` and `regard sinks`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

__all__ = ["AskSettings", "SinksSettings"]


@dataclass(frozen=True)
class AskSettings:
    """Ask a vision-language model about an image, as it is and with fixes, and draw where it looked at every word.

    Attributes:
        image: file with the image; example is the one that comes with the embedded model.
        question: what is asked.
        model: embedded, the folder of a model, or its name on the Hugging Face hub.
        fix: methods against hallucination that are at work together, e.g. var,vhr:alpha=1.5; give it again for
            another answer with other methods. If one of them does nothing, the exit code is 1.
        out: folder for attention.png and answers.json, or a file ending in .png for the image alone.
        max_new_tokens: longest answer, in tokens.
        temperature: 0 takes the likeliest word; above, words are drawn.
        beams: width of the beam search; with more than one there is no image.
        seed: of the draws.
        device: cpu, cuda, cuda:1 ...; by default a GPU of CUDA if there is one.
        dtype: type of the weights; auto is that of the file, but on a CPU float32 for float16.
        json: machine-readable output.
    """

    image: str
    question: str
    _: KW_ONLY
    model: str = "embedded"
    fix: list[str] = field(default_factory=list, metadata={"repeated": True})
    out: str = "runs/ask"
    max_new_tokens: int = 64
    temperature: float = 0.0
    beams: int = 1
    seed: int = 0
    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class SinksSettings:
    """Find the dimensions that give away a model's attention sinks, which the method var needs.

    Attributes:
        images: files with images.
        model: as in `regard ask`.
        question: prompt beside every image.
        threshold: least strength of a sink, below the root of the model's width; by default the model's own, or 20.
        device: as in `regard ask`.
        dtype: as in `regard ask`.
        json: machine-readable output.
    """

    images: list[str] = field(metadata={"words": "files with a few different images"})
    model: str = "embedded"
    question: str = "describe the image in detail ."
    threshold: float | None = None
    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    json: bool = False
