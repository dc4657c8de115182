"""A LLaVA of 1.8 million weights for the rendered scenes, before it has learnt anything.

It is an ordinary `LlavaForConditionalGeneration` (a CLIP vision tower, a projector, a Llama), small enough to be
trained on a laptop and to be shipped with the package. What is not ordinary is how it starts:

* Weights of a layer this narrow must be drawn four times as wide as the library does (0.08 instead of 0.02), keys
  start equal to queries, and the projector starts with variance 1 / fan-in; else it does not learn to look.
* One dimension of the language model, the sink dimension, belongs to massive activations, as a few dimensions of large
  models do (Sun et al. 2024, arXiv:2402.17762). Only <bos> and, through the projector, background patches have a
  large value there; no layer writes to it, values do not read it, and the last norm shuts it out. After a norm such a
  token is little more than that one value, so that all of them look alike to queries and say next to nothing: heads
  can turn to them when there is nothing to do, which makes them attention sinks (Kang et al. 2025, arXiv:2503.03321).
  In large models such activations come about by themselves; here they are planted.
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
#: The dimension of massive activations, and what stands there in the embedding of <bos>.
SINK_DIMENSION = 100
SINK_VALUE = 40.0
#: From this sink value on a token is a sink; no token of this width can have more than 11.3.
SINK_THRESHOLD = 6.0
_SPREAD = 0.08


def build_scene_lvlm(seed: int = 0) -> LlavaForConditionalGeneration:
    """The model with its first weights, in float32.

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
    """Take the gradients from all weights that would write to the sink dimension, but for the projector's.

    To be called after each backward pass, before the optimiser's step. What is zero there stays zero; weight decay
    takes a few percent off the value of <bos>.
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
    """What the vision tower hands to the projector: its last hidden states without the class token."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def project(
    model: LlavaForConditionalGeneration, seen: Float[Tensor, "images patches dim"]
) -> Float[Tensor, "images patches dim"]:
    """The image tokens, as the language model gets them."""
    return model.model.multi_modal_projector(seen)


@torch.no_grad()
def plant_visual_sinks(
    model: LlavaForConditionalGeneration,
    seen: Float[Tensor, "images patches dim"],
    background: Bool[Tensor, "images patches"],
) -> None:
    """Set the projector's row of the sink dimension by least squares: large for background, nothing for things.

    Args:
        model: its vision tower can tell background already.
        seen: what the tower says of some images, see `see`.
        background: which patches hold nothing.
    """
    projector: Any = model.model.multi_modal_projector
    hidden = projector.act(projector.linear_1(seen)).flatten(0, 1).double()
    inputs = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
    wanted = SINK_VALUE * background.flatten().double()
    ridge = 1e-3 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    row = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ wanted)
    projector.linear_2.weight[SINK_DIMENSION] = row[:-1].to(projector.linear_2.weight.dtype)
    projector.linear_2.bias[SINK_DIMENSION] = row[-1].to(projector.linear_2.bias.dtype)
