"""Processors for the tiny LVLMs of `tiny_lvlms`, with words for tokens; pytest finds this file by `pythonpath`."""

from __future__ import annotations

from typing import Any

import transformers as hf
from tiny_lvlms import IMAGE, PAD, VIDEO, VOCABULARY
from tokenizers import Tokenizer, models, pre_tokenizers, processors

#: What stands for an image in the tokens, and what a family writes around it.
_MARKS = {IMAGE: "<image>", PAD: "<pad>", VIDEO: "<video>", 194: "<begin>", 195: "<end>", 193: "<break>", 192: "<tile>"}
_TEXT = "yes no is there a dog cat in the image ? . what user : assistant red blue"
FAMILIES = (
    *("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "paligemma", "gemma3"),
    *("idefics3", "internvl", "mistral3", "instructblip"),
)
_CHAT = (
    "{% for message in messages %}user : {% for part in message['content'] %}{% if part['type'] == 'image' %}MARK "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def tiny_tokenizer(**own: str) -> hf.PreTrainedTokenizerFast:
    """Words of the first tokens, special ones at the end; `own` are attributes that a processor looks for."""
    words = ["<unk>", "<bos>", "<eos>", *_TEXT.split()]
    words += [f"w{index}" for index in range(len(words), VOCABULARY)]
    for index, mark in _MARKS.items():
        words[index] = mark
    words[191], words[190] = "<fake_token_around_image>", "<global-img>"
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    extra = [*_MARKS.values(), words[190], words[191]]
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **special,
        additional_special_tokens=[mark for mark in extra if mark != "<pad>"],
        extra_special_tokens=own,
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_processor(family: str) -> Any:
    """The processor of a family, whose images are as its tiny model wants them."""
    square = {"height": 28, "width": 28}
    mark = {"gemma3": "<begin>", "qwen": "<begin> <image> <end>"}.get(family if family == "gemma3" else family[:4])
    chat = _CHAT.replace("MARK", mark or "<image>")
    words = tiny_tokenizer(image_token="<image>")
    if family in ("llava", "llava_next", "llava_onevision"):
        own: dict[str, Any] = {"patch_size": 14, "vision_feature_select_strategy": "default", "chat_template": chat}
        if family == "llava":
            images = hf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=square)
            return hf.LlavaProcessor(images, words, num_additional_image_tokens=1, **own)
        if family == "llava_next":
            images = hf.LlavaNextImageProcessorPil(size={"shortest_edge": 28}, crop_size=square)
            images.image_grid_pinpoints = [[28, 28]]
            return hf.LlavaNextProcessor(images, words, num_additional_image_tokens=1, **own)
        images = hf.LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=[[28, 28]])
        video = hf.LlavaOnevisionVideoProcessor(size=square)
        own = {"vision_feature_select_strategy": "full", "chat_template": chat, "num_image_tokens": 4}
        return hf.LlavaOnevisionProcessor(images, words, video, **own)
    if family.startswith("qwen"):
        words = tiny_tokenizer(
            image_token="<image>", video_token="<video>", vision_start_token="<begin>", vision_end_token="<end>"
        )
        own = {"patch_size": 14, "size": {"shortest_edge": 28 * 28, "longest_edge": 84 * 84}}
        images = hf.Qwen2VLImageProcessorPil(**own)
        video = (hf.Qwen3VLVideoProcessor if family == "qwen3_vl" else hf.Qwen2VLVideoProcessor)(**own)
        kind = {"qwen2_vl": hf.Qwen2VLProcessor, "qwen2_5_vl": hf.Qwen2_5_VLProcessor, "qwen3_vl": hf.Qwen3VLProcessor}
        return kind[family](images, words, video, chat_template=chat)
    if family == "paligemma":
        images = hf.SiglipImageProcessorPil(size=square)
        images.image_seq_length = 4
        return hf.PaliGemmaProcessor(images, words)
    if family == "gemma3":
        words = tiny_tokenizer(image_token="<image>", boi_token="<begin>", eoi_token="<end>")
        images = hf.Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
        return hf.Gemma3Processor(images, words, image_seq_length=4, chat_template=chat)
    if family == "idefics3":
        images = hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 56}, do_image_splitting=False
        )
        return hf.Idefics3Processor(images, words, image_seq_len=4, chat_template=chat)
    if family == "internvl":
        words = tiny_tokenizer(
            start_image_token="<begin>", end_image_token="<end>", context_image_token="<image>", video_token="<video>"
        )
        size = {"height": 56, "width": 56}
        images = hf.GotOcr2ImageProcessorPil(size=size, crop_to_patches=False)
        return hf.InternVLProcessor(
            images, words, hf.InternVLVideoProcessor(size=size), image_seq_length=4, chat_template=chat
        )
    if family == "mistral3":
        images = hf.PixtralImageProcessorPil(size={"longest_edge": 56}, patch_size={"height": 28, "width": 28})
        own = {"image_token": "<image>", "image_break_token": "<break>", "image_end_token": "<end>"}
        return hf.PixtralProcessor(images, words, patch_size=14, spatial_merge_size=2, chat_template=chat, **own)
    images = hf.BlipImageProcessorPil(size=square)
    words = tiny_tokenizer()  # the processor brings its own mark
    return hf.InstructBlipProcessor(images, words, tiny_tokenizer(), num_query_tokens=4)
