"""Settings that all tasks with a vision-language model share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .resuming import FREE
from .types import Checked

__all__ = ["LvlmSettings"]


@dataclass(frozen=True, kw_only=True)
class LvlmSettings(Checked):
    """Which vision-language model, and where it runs.

    Attributes:
        model: embedded, the folder of a model, or its name on the Hugging Face hub.
        device: cpu, cuda, cuda:N or mps; by default CUDA if available.
        dtype: type of the weights; auto is the type in the file, but float32 for float16 on a CPU.
    """

    model: str = "embedded"
    device: str | None = field(default=None, metadata=FREE)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
