"""Prompts followed by given answers: inputs for teacher forcing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["with_answers", "with_padded_answers"]


def with_answers(model_type: str, inputs: Mapping[str, Any], answers: Int[Tensor, "samples answer"]) -> dict[str, Any]:
    """Append one answer to each prompt, and extend all other inputs that have one entry per token.

    Args:
        model_type: of the model's configuration. PaliGemma distinguishes prompts, whose tokens see each other, from
            answers by the token type.
        inputs: of the model; prompts are padded on the left.
        answers: all of the same length.

    Example:
        >>> inputs = {"input_ids": torch.tensor([[1, 5]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)}
        >>> with_answers("llava", inputs, torch.tensor([[7]]))["input_ids"]
        tensor([[1, 5, 7]])
    """
    longer = dict(inputs)
    prompt = inputs["input_ids"].shape
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == prompt:
            if name == "input_ids":
                appended = answers.to(value)
            elif name == "attention_mask" or (name == "token_type_ids" and model_type.startswith("paligemma")):
                appended = value.new_ones(answers.shape)
            elif name.endswith("token_type_ids"):
                appended = value.new_zeros(answers.shape)
            else:
                continue
            longer[name] = torch.cat([value, appended], dim=1)
    return longer


def with_padded_answers(
    model_type: str, inputs: Mapping[str, Tensor], answers: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Append answers of different length to prompts, padded on the right.

    Args:
        model_type: as in `with_answers`.
        inputs: of the prompts, padded on the left.
        answers: token ids of each answer.

    Example:
        >>> prompts = {"input_ids": torch.tensor([[5, 6], [5, 7]]), "attention_mask": torch.ones(2, 2).long()}
        >>> with_padded_answers("llava", prompts, [[8], [8, 9]])["attention_mask"].tolist()
        [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    max_length, ids = max(map(len, answers)), inputs["input_ids"]
    padded = torch.tensor([[*tokens, *[0] * (max_length - len(tokens))] for tokens in answers], dtype=ids.dtype)
    longer = with_answers(model_type, inputs, padded.view(len(ids), max_length).to(ids.device))
    for mask, tokens in zip(longer["attention_mask"], answers, strict=True):
        mask[ids.shape[1] + len(tokens) :] = 0
    return longer
