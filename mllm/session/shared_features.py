"""Image features that are computed once for several answers about the same images.

The image encoder is replaced by a caching one, through the accessors of transformers; equal inputs give the cached
features, so results do not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["shared_image_features", "without_cached_features"]

_MISSING = object()


@contextmanager
def shared_image_features(model: PreTrainedModel) -> Iterator[None]:
    """Cache the first output of the image encoder for the duration of the block.

    One set of inputs is kept: those of the first answer. Interventions that show the model other images (noise, crops)
    have them encoded again. A model whose encoder transformers does not find is not changed.

    Args:
        model: a vision-language model.

    Example:
        >>> from regard.mllm import LVLM
        >>> lvlm = LVLM.load("embedded")
        >>> with shared_image_features(lvlm.model):
        ...     answers = [lvlm.answer([lvlm.example_image()], ["what is it ?"], max_new_tokens=3) for _ in range(2)]
        >>> answers[0] == answers[1]
        True
    """
    encoder = model.get_encoder(modality="image")
    if encoder is model or encoder is model.base_model or isinstance(encoder, _CachingEncoder):
        yield
        return
    model.set_encoder(_CachingEncoder(encoder), modality="image")
    try:
        yield
    finally:
        model.set_encoder(encoder, modality="image")


@contextmanager
def without_cached_features(model: PreTrainedModel) -> Iterator[None]:
    """Run the encoder itself within `shared_image_features`, for access to its layers.

    Args:
        model: a vision-language model.
    """
    encoder = model.get_encoder(modality="image")
    if not isinstance(encoder, _CachingEncoder):
        yield
        return
    model.set_encoder(encoder.encoder, modality="image")
    try:
        yield
    finally:
        model.set_encoder(encoder, modality="image")


class _CachingEncoder(nn.Module):
    """An encoder that returns its first output again for equal inputs."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.train(encoder.training)
        self._inputs: Any = _MISSING
        self._output: Any = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("encoder"), name)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        if self._inputs is _MISSING:
            self._inputs = _copied((inputs, options))
            self._output = self.encoder(*inputs, **options)
        elif not _same(self._inputs, (inputs, options)):
            return self.encoder(*inputs, **options)
        return copy(self._output)  # some models put something else into its fields


def _copied(inputs: Any) -> Any:
    """A copy of inputs."""
    if isinstance(inputs, Tensor):
        return inputs.clone()
    if isinstance(inputs, dict):
        return {name: _copied(value) for name, value in inputs.items()}
    return tuple(map(_copied, inputs)) if isinstance(inputs, list | tuple) else inputs


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.dtype == other.dtype and one.device == other.device
        return alike and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
        )
    if isinstance(one, tuple):
        same_length = isinstance(other, list | tuple) and len(one) == len(other)
        return same_length and all(_same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)
