"""Prompts without their image, with which several interventions compare."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["image_free_inputs", "image_free_model"]


def image_free_inputs(
    input_ids: Int[Tensor, "samples prompt"],
    keep: Bool[Tensor, "samples prompt"],
    others: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Remove the image tokens from prompts, and pad the rest on the left.

    Token types are cut in the same way; image inputs are dropped.

    Args:
        input_ids: the prompts.
        keep: tokens that stay: neither image nor padding.
        others: the other inputs of the model; entries beyond the prompt are ignored.

    Returns:
        `input_ids`, `attention_mask`, `position_ids` (counted from 0 at each sample's first token) and the token types.

    Example:
        >>> keep = torch.tensor([[True, False, True], [False, False, True]])
        >>> image_free_inputs(torch.tensor([[5, 9, 6], [0, 9, 7]]), keep)["input_ids"].tolist()
        [[5, 6], [0, 7]]
    """
    max_length = max(1, int(keep.sum(dim=-1).max()))
    order = keep.int().argsort(dim=-1, stable=True)[:, -max_length:]  # kept tokens last, in their order
    attention_mask = keep.gather(1, order).long()
    cut = {"input_ids": input_ids.gather(1, order)}
    for name, value in (others or {}).items():
        if name.endswith("token_type_ids") and name != "qformer_token_type_ids" and isinstance(value, Tensor):
            cut[name] = value[:, : input_ids.shape[1]].gather(1, order)
    cut["input_ids"] = torch.where(attention_mask.bool(), cut["input_ids"], input_ids.new_zeros(()))
    positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
    return {**cut, "attention_mask": attention_mask, "position_ids": positions}


def image_free_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model for prompts without image: the whole model, or its language model if the whole requires an image."""
    pixels = inspect.signature(model.forward).parameters.get("pixel_values")
    if pixels is not None and pixels.default is inspect.Parameter.empty:
        return model.language_model  # type: ignore[return-value]
    return model
