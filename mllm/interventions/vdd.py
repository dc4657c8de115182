"""VDD: visual debias decoding, which contrasts the logits with those of the question without its image.

Source: Zhang et al., "Debiasing Multimodal Large Language Models", arXiv:2403.05262; yfzhang114/LLaVA-Align@dfbecfa.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..session.contract import Call, Edit
from ..session.streams import Stream, contrast

__all__ = ["VDD"]


@dataclass(frozen=True, kw_only=True)
class VDD:
    """Logits (1 + alpha) * z - alpha * z', with z' the logits of the prompt without its image.

    Tokens below `plausible` times the highest probability are excluded. The authors' code finds the image position with
    a row index, which only works for single prompts; here every sample of a batch has its own. Cost: an image-free
    stream, two with `instead="both"`.

    Attributes:
        alpha: strength of the contrast, at least 0; the authors' parser has 1.
        plausible: tokens whose probability is below this fraction of the highest are excluded, 0-1.
        instead: what replaces the image in the second prompt: `"none"`, nothing; `"unknown"`, one unknown token;
            `"both"`, the mean of the two, with a third stream.
        unknown_token: the token for `"unknown"` and `"both"`, e.g. 0 for LLaMA.

    Raises:
        ValueError: a value is out of its range, or an unknown token is needed and not given.

    Example:
        >>> VDD(alpha=0.5).plausible
        0.1
    """

    name: ClassVar[str] = "vdd"
    alpha: float = 1.0
    plausible: float = 0.1
    instead: Literal["none", "unknown", "both"] = "none"
    unknown_token: int | None = None

    def __post_init__(self) -> None:
        if self.alpha < 0 or not 0 <= self.plausible <= 1:
            raise ValueError(f"VDD needs alpha >= 0 and plausible from 0 to 1; got {self.alpha} and {self.plausible}")
        if self.instead not in ("none", "unknown", "both"):
            raise ValueError(f"VDD replaces the image by none, unknown or both; got {self.instead!r}")
        if self.instead != "none" and self.unknown_token is None:
            raise ValueError(f"VDD(instead={self.instead!r}) needs unknown_token, the tokenizer's unk_token_id")

    def begin(self, call: Call) -> Edit:
        """Start the image-free streams."""
        tokens: list[int | None] = [] if self.instead == "unknown" else [None]
        tokens += [] if self.instead == "none" else [self.unknown_token]
        streams = [Stream.without_image(call, instead=token) for token in tokens]

        def others(seen: Tensor) -> Tensor:
            scores = [stream.scores(seen) for stream in streams]
            return sum(scores[1:], scores[0]) / len(scores)

        def combine(scores: Tensor, other: Tensor) -> Tensor:
            return (1 + self.alpha) * scores - self.alpha * other

        return Edit(process=contrast(call, others, combine, self.plausible))
