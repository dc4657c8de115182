"""VDD: visual debias decoding. Take away from the answer what the question alone would have said.

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
    """Scores of the next word (1 + alpha) z - alpha z', z' being those of the prompt without its image.

    The authors' code finds the image's place with a row index, which only works for one prompt at a time; here every
    sample of a batch has its own.

    Attributes:
        alpha: strength of the contrast, at least 0; the authors' parser has 1.
        plausible: words less likely than this share of the likeliest one are ruled out, 0-1.
        instead: what the second prompt has in the image's place: `"none"`, nothing; `"unknown"`, one unknown token;
            `"both"`, the mean of the two, which costs a third stream.
        unknown_token: the token for `"unknown"` and `"both"`, e.g. 0 for LLaMA.

    Raises:
        ValueError: a value is out of its range, or an unknown token is asked for and not given.

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
            raise ValueError(f"VDD puts none, unknown or both in the image's place; got {self.instead!r}")
        if self.instead != "none" and self.unknown_token is None:
            raise ValueError(f"VDD(instead={self.instead!r}) needs unknown_token, the tokenizer's unk_token_id")

    def begin(self, call: Call) -> Edit:
        """Open the streams without the image."""
        tokens: list[int | None] = [] if self.instead == "unknown" else [None]
        tokens += [] if self.instead == "none" else [self.unknown_token]
        streams = [Stream.without_image(call, instead=token) for token in tokens]

        def others(seen: Tensor) -> Tensor:
            scores = [stream.scores(seen) for stream in streams]
            return sum(scores[1:], scores[0]) / len(scores)

        def combine(scores: Tensor, other: Tensor) -> Tensor:
            return (1 + self.alpha) * scores - self.alpha * other

        return Edit(process=contrast(call, others, combine, self.plausible))
