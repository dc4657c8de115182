"""Controls: simple interventions without any idea about images, as a reference for the others.

An intervention is only evidence if it reduces hallucination more than these: a bias towards the end of the text
shortens captions, a bias against "yes" removes a bias for it, and amplifying random heads changes a model too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..session.contract import Call, Edit, Prompts, View
from ..session.layer_selection import layer_indices

__all__ = ["EndBias", "ImageScale", "RandomHeads", "WordBias"]


@dataclass(frozen=True, kw_only=True)
class EndBias:
    """Add the constant `amount` to the logit of the end-of-answer token.

    Attributes:
        amount: in nats; above 0 for shorter answers.

    Example:
        >>> EndBias(amount=0.5).name
        'end_bias'
    """

    name: ClassVar[str] = "end_bias"
    amount: float = 1.0

    def begin(self, call: Call) -> Edit:
        """Look up the tokens that end an answer.

        Raises:
            ValueError: there is none.
        """
        end = call.inputs.get("eos_token_id", call.model.generation_config.eos_token_id)
        if end is None:
            raise ValueError("EndBias needs a token that ends an answer; the model's generation_config names none")
        return _biased(call, [end] if isinstance(end, int) else list(end), self.amount)


@dataclass(frozen=True, kw_only=True)
class WordBias:
    """Add the constant `amount` to the logits of the first tokens of a word, such as yes.

    Attributes:
        word: its usual spellings are looked up by `LVLM`.
        amount: in nats; below 0 makes the word less frequent.
        tokens: token ids, instead of the word.

    Example:
        >>> WordBias(tokens=[5], amount=-0.5).word
        'yes'
    """

    name: ClassVar[str] = "word_bias"
    word: str = "yes"
    amount: float = -1.0
    tokens: Sequence[int] | None = None

    def bind(self, prompts: Prompts) -> WordBias:
        """A copy with the token ids."""
        return self if self.tokens else dataclasses.replace(self, tokens=prompts.first_tokens(self.word))

    def begin(self, call: Call) -> Edit:
        """Check that the token ids are known.

        Raises:
            ValueError: the word's tokens are not known.
        """
        if not self.tokens:
            raise ValueError(f"WordBias needs the tokens of {self.word!r}: give tokens=[...], or use LVLM")
        return _biased(call, list(self.tokens), self.amount)


@dataclass(frozen=True, kw_only=True)
class RandomHeads:
    """Multiply the outputs of a random half of the heads in each layer by `alpha`: the control of VHR.

    Attributes:
        alpha: factor, above 0.
        layers: decoder layers, see `layer_indices`.
        seed: of the selection; the heads are the same for every prompt.

    Raises:
        ValueError: `alpha` is not above 0.

    Example:
        >>> RandomHeads(seed=3).alpha
        2.0
    """

    name: ClassVar[str] = "random_heads"
    alpha: float = 2.0
    layers: str | Sequence[int] = "1,-14:"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"RandomHeads multiplies heads by alpha, which is above 0; got {self.alpha}")

    def begin(self, call: Call) -> Edit:
        """Select the heads."""
        heads, layers = call.text_config.num_attention_heads, layer_indices(self.layers, call.layers)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = {layer: torch.randperm(heads, generator=generator)[: heads // 2].to(call.device) for layer in layers}

        def scale(layer: int, output: Tensor) -> Tensor:
            return output.new_ones(output.shape[:2]).index_fill(1, drawn[layer], self.alpha)

        return Edit(layers=layers, scale_heads=scale, details={"heads": {i: h.tolist() for i, h in drawn.items()}})


@dataclass(frozen=True, kw_only=True)
class ImageScale:
    """Multiply the attention of the last row to all image tokens by `factor`, and normalise the row.

    Attributes:
        factor: at least 0, other than 1.
        layers: decoder layers, see `layer_indices`.

    Raises:
        ValueError: the factor is negative or 1.

    Example:
        >>> ImageScale(factor=0.5).layers
        'all'
    """

    name: ClassVar[str] = "image_scale"
    factor: float = 2.0
    layers: str | Sequence[int] = "all"

    def __post_init__(self) -> None:
        if self.factor < 0 or self.factor == 1:
            raise ValueError(f"ImageScale multiplies by a factor, at least 0 and not 1; got {self.factor}")

    def begin(self, call: Call) -> Edit:
        """Mark the image columns."""
        image = call.image.float()

        def edit(layer: int, weights: Tensor, view: View) -> Tensor:
            columns = view.where_edited(view.of_prompt(image))
            edited = torch.addcmul(weights, weights, columns, value=self.factor - 1)
            return edited / edited.sum(dim=-1, keepdim=True)

        return Edit(layers=layer_indices(self.layers, call.layers), rows="last", edit_weights=edit)


def _biased(call: Call, tokens: list[int], amount: float) -> Edit:
    ids = torch.tensor(tokens, device=call.device)

    def process(tokens_so_far: Tensor, scores: Tensor) -> Tensor:
        changed = scores.clone()
        changed[:, ids.to(scores.device)] += amount
        return changed.log_softmax(dim=-1) if call.beams > 1 else changed

    return Edit(process=process)
