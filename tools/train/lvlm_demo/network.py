"""A LLaVA with 1.8 million weights for the rendered scenes, and its initialisation.

It is an ordinary `LlavaForConditionalGeneration` (a CLIP vision tower, a projector, a Llama), small enough to be
trained on a laptop and bundled with the package. Only its initialisation is special:

* The std of the weights is four times the library's (0.08 instead of 0.02), since layers are narrow; keys start equal
  to queries, and the projector starts with variance 1 / fan-in. Otherwise it does not learn to use the image.
* One dimension of the language model, the sink dimension, belongs to massive activations, as a few dimensions of large
  models do (Sun et al. 2024, arXiv:2402.17762). Only <bos> and, through the projector, background patches have a
  large value there; no layer writes to it, values do not read it, and the last norm removes it. After a norm that value
  dominates such a token, so that all of them look alike to queries and carry little information, which makes them
  attention sinks (Kang et al. 2025, arXiv:2503.03321). In large models such activations emerge; here they are planted.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from ....datasets.scene_words import PATCH_PX, WORDS
from ....datasets.scenes import IMAGE_PX

__all__ = [
    "SINK_DIMENSION",
    "SINK_THRESHOLD",
    "SINK_VALUE",
    "build_scene_lvlm",
    "guard_sink_dimension",
    "plant_visual_sinks",
    "project",
    "see",
]

WIDTH = 128
PATCHES = (IMAGE_PX // PATCH_PX) ** 2
#: The dimension of massive activations, and its value in the embedding of <bos>.
SINK_DIMENSION = 100
SINK_VALUE = 40.0
#: Minimum strength of a sink; at this width the maximum is 11.3.
SINK_THRESHOLD = 6.0
_SPREAD = 0.08


def build_scene_lvlm(seed: int = 0) -> LlavaForConditionalGeneration:
    """The model with initial weights, in float32.

    Args:
        seed: of the weights.

    Example:
        >>> model = build_scene_lvlm()
        >>> sum(weight.numel() for weight in model.parameters())
        1780608
    """
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=336,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
        initializer_range=_SPREAD,
        tie_word_embeddings=True,
    )
    config: Any = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=WORDS["<image>"],
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    for part in (config, text):
        part.pad_token_id, part.bos_token_id, part.eos_token_id = (WORDS[word] for word in ("<pad>", "<bos>", "<eos>"))
    config.regard = {"sink_dimensions": [SINK_DIMENSION], "sink_threshold": SINK_THRESHOLD}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        _start(model)
    return model


@torch.no_grad()
def _start(model: Any) -> None:
    for linear in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        nn.init.zeros_(linear.bias)
    for layer in model.model.language_model.layers:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        layer.self_attn.v_proj.weight[:, SINK_DIMENSION] = 0
        layer.self_attn.o_proj.weight[SINK_DIMENSION] = 0
        layer.mlp.down_proj.weight[SINK_DIMENSION] = 0
    words = model.get_input_embeddings().weight
    words[:, SINK_DIMENSION] = 0
    words[WORDS["<bos>"], SINK_DIMENSION] = SINK_VALUE
    model.model.language_model.norm.weight[SINK_DIMENSION] = 0


def guard_sink_dimension(model: LlavaForConditionalGeneration) -> None:
    """Zero the gradients of all weights that write to the sink dimension, except the projector's.

    Call it after each backward pass, before the optimiser's step. Zeros stay zero; weight decay reduces the value of
    <bos> by a few percent.
    """
    language: Any = model.model.language_model
    for layer in language.layers:
        for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            if weight.grad is not None:
                weight.grad[SINK_DIMENSION] = 0
        if layer.self_attn.v_proj.weight.grad is not None:
            layer.self_attn.v_proj.weight.grad[:, SINK_DIMENSION] = 0
    if language.norm.weight.grad is not None:
        language.norm.weight.grad[SINK_DIMENSION] = 0
    if language.embed_tokens.weight.grad is not None:
        language.embed_tokens.weight.grad[:, SINK_DIMENSION] = 0


def see(
    model: LlavaForConditionalGeneration, pixels: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images patches dim"]:
    """Output of the vision tower for the projector: the last hidden states without the class token."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def project(
    model: LlavaForConditionalGeneration, seen: Float[Tensor, "images patches dim"]
) -> Float[Tensor, "images patches dim"]:
    """The image tokens for the language model."""
    return model.model.multi_modal_projector(seen)


@torch.no_grad()
def plant_visual_sinks(
    model: LlavaForConditionalGeneration,
    seen: Float[Tensor, "images patches dim"],
    background: Bool[Tensor, "images patches"],
) -> None:
    """Fit the projector's row of the sink dimension by least squares: `SINK_VALUE` for background, 0 for objects.

    Args:
        model: its vision tower is already trained.
        seen: output of the tower for some images, see `see`.
        background: which patches have no object.
    """
    projector: Any = model.model.multi_modal_projector
    hidden = projector.act(projector.linear_1(seen)).flatten(0, 1).double()
    inputs = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
    wanted = SINK_VALUE * background.flatten().double()
    ridge = 1e-3 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    row = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ wanted)
    projector.linear_2.weight[SINK_DIMENSION] = row[:-1].to(projector.linear_2.weight.dtype)
    projector.linear_2.bias[SINK_DIMENSION] = row[-1].to(projector.linear_2.bias.dtype)
