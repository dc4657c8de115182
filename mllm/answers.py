"""Prompts with answers behind them: what teacher forcing and a second reading of beams need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["with_answers"]


def with_answers(model_type: str, inputs: Mapping[str, Any], answers: Int[Tensor, "samples answer"]) -> dict[str, Any]:
    """Put the tokens of one answer behind each prompt, with everything that goes by token.

    Args:
        model_type: of the model's configuration. PaliGemma tells prompts, whose tokens all see each other, from
            answers by their token type.
        inputs: of the model; prompts are padded on the left.
        answers: all of one length.

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
                behind = answers.to(value)
            elif name == "attention_mask" or (name == "token_type_ids" and model_type.startswith("paligemma")):
                behind = value.new_ones(answers.shape)
            elif name.endswith("token_type_ids"):
                behind = value.new_zeros(answers.shape)
            else:
                continue
            longer[name] = torch.cat([value, behind], dim=1)
    return longer
