"""A tiny LLaVA with random weights and its processor, in a folder; pytest finds this file by `pythonpath`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

_TEXT = "user : assistant describe is there a dog cat car in the image ? . , yes no it red blue and white"
WORDS = {word: index for index, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", "<image>", *_TEXT.split()])}
CHAT = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_input_names=["input_ids", "attention_mask"],
    )


def processor(side: int = 32, patch: int = 8) -> Any:
    """Resizes the shorter side and crops the middle, as LLaVA's does."""
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(
        images,
        tokenizer(),
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def build(layers: int = 4, seed: int = 0) -> LlavaForConditionalGeneration:
    """The model: 4 x 4 image tokens, 4 heads on 2 key-value heads; it never ends an answer by itself."""
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        initializer_range=0.2,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_id=WORDS["<image>"],
        image_seq_length=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    model.lm_head.weight.data[: WORDS["<image>"] + 1] = 0  # words only
    model.lm_head.weight.data[WORDS["<image>"] + 1 :] *= 3
    return model


def save(folder: Path, **options: Any) -> Path:
    """The folder, as transformers saves it."""
    build(**options).save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder
