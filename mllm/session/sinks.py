"""Attention sinks: tokens with high attention and little information, and the dimensions that identify them.

In the hidden state of a sink a few dimensions, the same ones throughout a model, are many times larger than the others.

Source: Sun et al. 2024, "Massive Activations in Large Language Models", arXiv:2402.17762; the strength is that of Kang
et al. 2025, arXiv:2503.03321.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from .model_structure import decoder_layers

__all__ = ["SINKS", "Sinks", "discover_sinks", "sink_strength", "sinks_of"]

#: Minimum strength of a sink (tau) in the paper.
THRESHOLD = 20.0


@dataclass(frozen=True)
class Sinks:
    """How to identify the sinks of a model.

    Attributes:
        dimensions: indices into the hidden state.
        threshold: minimum strength of a sink.
        source: of the values.
    """

    dimensions: tuple[int, ...]
    threshold: float = THRESHOLD
    source: str = "given"


_CODE, _PAPER, _OTHERS = "seilk/VisAttnSink@98e62d6", "arXiv:2503.03321", "third-party tables"

#: (type of the language model, its width, its layers) -> its sinks.
SINKS: dict[tuple[str, int, int], Sinks] = {
    ("llama", 4096, 32): Sinks((1415, 2533), source=_CODE),  # LLaVA-1.5-7B, LLaMA-2-7B, Vicuna-7B
    ("llama", 5120, 40): Sinks((2100, 4743), source=_CODE),  # LLaVA-1.5-13B, LLaVA-1.6-Vicuna-13B
    ("qwen2_vl_text", 3584, 28): Sinks((458, 2570), source=_PAPER),  # Qwen2-VL-7B
    ("internlm2", 4096, 32): Sinks((3584,), source=_PAPER),  # InternVL2-8B
    ("qwen2_5_vl_text", 3584, 28): Sinks((458, 2570), source=_OTHERS),
    ("qwen2_5_vl_text", 2048, 36): Sinks((318, 1819, 1874), source=_OTHERS),
    ("qwen2_5_vl_text", 5120, 64): Sinks((3094, 4675), source=_OTHERS),
    ("qwen2_vl_text", 1536, 28): Sinks((534, 940, 1073), source=_OTHERS),
    ("qwen3_vl_text", 2048, 28): Sinks((1401, 1793, 1999), source=_OTHERS),
    ("qwen3_vl_text", 2560, 36): Sinks((0,), source=_OTHERS),
    ("qwen3_vl_text", 4096, 36): Sinks((1838,), source=_OTHERS),
}


def sinks_of(model: PreTrainedModel, dimensions: Sequence[int] | None = None, threshold: float | None = None) -> Sinks:
    """The sinks of a model: as given, else from its configuration, else from the table `SINKS`.

    A configuration can have `regard: {sink_dimensions: [...], sink_threshold: ...}`.

    Raises:
        ValueError: the sinks are unknown, a dimension does not exist, or the threshold cannot be reached.

    Example:
        >>> from regard.mllm import LVLM
        >>> sinks_of(LVLM.load("embedded").model, dimensions=[3], threshold=5.0)
        Sinks(dimensions=(3,), threshold=5.0, source='given')
    """
    config = model.config.get_text_config(decoder=True)
    width, layers = config.hidden_size, config.num_hidden_layers
    own: Mapping[str, Any] = getattr(model.config, "regard", None) or {}
    if dimensions is not None:
        known = Sinks(tuple(dimensions), threshold or own.get("sink_threshold", THRESHOLD))
    elif own.get("sink_dimensions"):
        known = Sinks(tuple(own["sink_dimensions"]), own.get("sink_threshold", THRESHOLD), "the model's configuration")
    elif (config.model_type, width, layers) in SINKS:
        known = SINKS[config.model_type, width, layers]
    else:
        raise ValueError(
            f"no sink dimensions are known for {config.model_type!r} with width {width} and {layers} layers. Find them "
            "with regard.mllm.discover_sinks(model, [inputs, ...]) or `regard sinks --model M IMAGE ...`, and give "
            "them: VAR(dimensions=[...]), on the command line var(dimensions=[...])"
        )
    if threshold is not None:
        known = Sinks(known.dimensions, threshold, known.source)
    beyond = [index for index in known.dimensions if not 0 <= index < width]
    if beyond or not known.dimensions:
        raise ValueError(f"sink dimensions {beyond or list(known.dimensions)} do not exist; the width is {width}")
    if known.threshold >= width**0.5:
        raise ValueError(
            f"no token of this model can be a sink of strength {known.threshold:g}: at width {width} the strength is "
            f"below {width**0.5:.1f}. Give a smaller threshold: VAR(threshold=...)"
        )
    return known


def sink_strength(
    hidden: Float[Tensor, "*batch tokens width"], dimensions: Sequence[int] | None = None
) -> Float[Tensor, "*batch tokens"]:
    """Strength of a token as a sink: maximum over the sink dimensions of |x| / RMS(x), in float32.

    Args:
        hidden: the input of a decoder layer, before its norm.
        dimensions: the sink dimensions; all by default.

    Returns:
        From 0 to the square root of the width.

    Example:
        >>> sink_strength(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 8.0, 0.0, 0.0]]), [1])
        tensor([1.0000, 2.0000])
    """
    hidden = hidden.float()
    scale = (hidden.square().mean(dim=-1) + 1e-6).sqrt()
    chosen = hidden if dimensions is None else hidden[..., list(dimensions)]
    return chosen.abs().amax(dim=-1) / scale


def discover_sinks(
    model: PreTrainedModel, prompts: Iterable[Mapping[str, Any]], *, threshold: float | None = None
) -> Sinks:
    """Find a model's sink dimensions: those in which the first token is a sink in most of the middle layers.

    Args:
        model: the model.
        prompts: inputs of the model, a few different ones.
        threshold: minimum strength; by default that of the model's own configuration, else 20.

    Raises:
        ValueError: no dimension is that strong; the strongest is named.

    Example:
        >>> from regard.mllm import LVLM
        >>> lvlm = LVLM.load("embedded")
        >>> inputs = lvlm.prepare([lvlm.example_image()], ["describe the image in detail ."])
        >>> discover_sinks(lvlm.model, [inputs], threshold=1.5).threshold
        1.5
    """
    layers = decoder_layers(model)
    if threshold is None:
        threshold = float((getattr(model.config, "regard", None) or {}).get("sink_threshold", THRESHOLD))
    middle = range(len(layers) // 3, max(len(layers) // 3 + 1, 2 * len(layers) // 3))
    strengths: list[Tensor] = []  # each of one prompt and layer, (width)
    firsts: list[Tensor] = []

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = (args[0] if args else kwargs["hidden_states"]).float()
        first = hidden[torch.arange(len(hidden), device=hidden.device), firsts[-1].to(hidden.device)]
        scale = (first.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        strengths.extend((first.abs() / scale).cpu())

    handles = [layers[index].register_forward_pre_hook(hook, with_kwargs=True) for index in middle]
    try:
        for inputs in prompts:
            mask = inputs.get("attention_mask")
            ids = inputs["input_ids"]
            firsts.append(torch.zeros(len(ids), dtype=torch.long) if mask is None else mask.int().argmax(dim=-1))
            with torch.no_grad():
                model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not strengths:
        raise ValueError("discover_sinks needs at least one prompt")
    table = torch.stack(strengths)
    often = (table > threshold).float().mean(dim=0) > 0.5
    if not often.any():
        strongest = table.median(dim=0).values
        raise ValueError(
            f"no dimension of the first token exceeds {threshold:g} times the root mean square in most of the layers "
            f"{middle.start} to {middle.stop - 1}; the strongest, {int(strongest.argmax())}, reaches "
            f"{strongest.max().item():.2f}. The model has no such sinks, or a smaller threshold finds them"
        )
    return Sinks(tuple(int(index) for index in often.nonzero().flatten()), threshold, "discovered")
