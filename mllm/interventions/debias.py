"""Post-hoc debiasing of closed questions: divides out the probability of each answer without the image.

Source: Zhang et al., "Debiasing Multimodal Large Language Models", arXiv:2403.05262; yfzhang114/LLaVA-Align@dfbecfa,
after Zhao et al. 2021, "Calibrate Before Use", arXiv:2102.09690.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..session.contract import Call, Edit, Prompts
from ..session.streams import Stream

__all__ = ["Debias", "calibrated"]


@dataclass(frozen=True, kw_only=True)
class Debias:
    """Calibrate the first token of an answer among given labels with their probabilities without the image.

    With label probabilities p (each the sum over the first tokens of its spellings) and `prior` the same without the
    image, the calibrated probabilities are normalised p / prior (`rule="divide"`) or p - prior (`"subtract"`). The
    authors only read the labels' probabilities; here the joint probability of the labels is redistributed among them,
    and other tokens keep theirs, so that generation continues. Cost: one image-free prefill, unless `prior` is given.

    Attributes:
        labels: words, whose usual spellings are looked up by `LVLM`; or a list of first-token ids for each label.
        rule: `"divide"` by the probability without the image (W = diag(1/p), b = 0) or `"subtract"` it (W = 1,
            b = -p); probabilities are clamped to at least 1e-6.
        prior: label probabilities without the image, such as the mean over a set of questions; by default those of
            each question.

    Raises:
        ValueError: fewer than two labels; an unknown rule; a prior that does not fit; or, when a call begins, labels
            that are words and were not turned into tokens.

    Example:
        >>> Debias(labels=[[4], [7, 8]]).rule
        'divide'
    """

    name: ClassVar[str] = "debias"
    labels: Sequence[str] | Sequence[Sequence[int]] = ("yes", "no")
    rule: Literal["divide", "subtract"] = "divide"
    prior: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise ValueError(f"Debias chooses among at least two labels; got {list(self.labels)}")
        if self.rule not in ("divide", "subtract"):
            raise ValueError(f"Debias can divide or subtract; got {self.rule!r}")
        if self.prior is not None and len(self.prior) != len(self.labels):
            raise ValueError(f"Debias has {len(self.labels)} labels and {len(self.prior)} prior probabilities")

    def bind(self, prompts: Prompts) -> Debias:
        """A copy with the first tokens of the labels' spellings."""
        if not any(isinstance(label, str) for label in self.labels):
            return self
        return dataclasses.replace(self, labels=[prompts.first_tokens(str(label)) for label in self.labels])

    def begin(self, call: Call) -> Edit:
        """Start the image-free stream, unless the prior is given."""
        words = [label for label in self.labels if isinstance(label, str)]
        if words:
            raise ValueError(
                f"Debias needs the tokens of its labels {words}: give labels=[[...], [...]] with the ids of each "
                "label's first token, or use LVLM, which looks them up"
            )
        tokens = [torch.as_tensor(label, dtype=torch.long, device=call.device) for label in self.labels]
        stream = Stream.without_image(call) if self.prior is None else None

        def process(seen: Tensor, scores: Tensor) -> Tensor:
            if seen.shape[1] > call.prompt:
                return scores
            if stream is None:
                prior = torch.as_tensor(self.prior, device=scores.device, dtype=torch.float32).expand(len(scores), -1)
            else:
                prior = _label_shares(stream.scores(seen), tokens)
                stream.close()
            shares = _label_shares(scores, tokens)
            factors = calibrated(shares, prior, self.rule) / shares.clamp(min=1e-12)
            scores = scores.clone()
            for index, label in enumerate(tokens):
                scores[:, label] += factors[:, index, None].log().to(scores.dtype)
            return scores

        return Edit(process=process)


def calibrated(
    shares: Float[Tensor, "batch labels"],
    prior: Float[Tensor, "batch labels"],
    rule: Literal["divide", "subtract"] = "divide",
) -> Float[Tensor, "batch labels"]:
    """Probabilities of labels, W p + b, normalised.

    Args:
        shares: with the image, summing to 1.
        prior: without it, summing to 1.
        rule: see `Debias`.

    Example:
        >>> calibrated(torch.tensor([[0.6, 0.4]]), torch.tensor([[0.75, 0.25]])).round(decimals=3)
        tensor([[0.3330, 0.6670]])
    """
    prior = prior + 1e-4
    changed = shares / prior if rule == "divide" else shares - prior
    changed = changed.clamp(min=1e-6)
    return changed / changed.sum(dim=-1, keepdim=True)


def _label_shares(scores: Tensor, tokens: Sequence[Tensor]) -> Float[Tensor, "batch labels"]:
    mass = torch.stack([scores[:, label].float().logsumexp(dim=-1) for label in tokens], dim=-1)
    return mass.softmax(dim=-1)
