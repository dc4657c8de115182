"""Text stack, decoder layers, attention modules and image tokens of a multimodal transformers model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["attention_modules", "decoder_layers", "image_columns", "image_token_id", "text_stack"]


def text_stack(model: PreTrainedModel) -> PreTrainedModel:
    """The submodel that holds the decoder layers of the language model.

    Raises:
        ValueError: there is none, or it is an encoder with a decoder.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False) or getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder model; interventions need a decoder-only language model"
        )
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.config is config and _layers(module) is not None:
            return module
    raise ValueError(f"{type(model).__name__} has no decoder layers that transformers' conventions would name")


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers of the language model, in order."""
    layers = _layers(text_stack(model))
    assert layers is not None
    return list(layers)


def attention_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The attention of every decoder layer, in order.

    Raises:
        ValueError: a layer has no softmax attention over the tokens, or reads the image by cross-attention.
    """
    found = []
    for index, layer in enumerate(decoder_layers(model)):
        inside = [module for module in layer.modules() if hasattr(module, "layer_idx") and module is not layer]
        kinds = [type(module).__name__ for module in inside]
        if any("CrossAttention" in kind for kind in kinds):
            raise ValueError(
                f"decoder layer {index} of {type(model).__name__} reads the image by cross-attention ({kinds[0]}); "
                "only models with image tokens in the prompt are supported"
            )
        softmax = [module for module in inside if hasattr(module, "q_proj") or hasattr(module, "qkv_proj")]
        softmax += [module for module in inside if hasattr(module, "query_key_value") and module not in softmax]
        if len(softmax) != 1:
            raise ValueError(
                f"decoder layer {index} of {type(model).__name__} has no softmax attention "
                f"({', '.join(kinds) or 'no attention at all'}): linear attention and state-space layers have no "
                "weights to edit"
            )
        found.append(softmax[0])
    return found


def image_token_id(model: PreTrainedModel) -> int:
    """Id of the image token.

    Raises:
        ValueError: the model does not accept images.
    """
    for name in ("image_token_id", "image_token_index"):
        token = getattr(model.config, name, None)
        if token is not None:
            return int(token)
    raise ValueError(
        f"{type(model).__name__} does not accept images: its configuration has no image token. "
        "Load a vision-language model"
    )


def image_columns(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """Which tokens of the prompts are image or video tokens, (batch, tokens)."""
    columns = input_ids == image_token_id(model)
    video: Any = getattr(model.config, "video_token_id", None)
    return columns if video is None else columns | (input_ids == int(video))


def _layers(module: nn.Module) -> nn.ModuleList | None:
    for name in ("layers", "h", "blocks"):
        layers = getattr(module, name, None)
        if isinstance(layers, nn.ModuleList) and len(layers):
            return layers
    return None
