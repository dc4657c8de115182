"""Tiny LVLMs of every family with random weights; pytest finds this file by `pythonpath`.

A prompt is a list of token ids in which `IMAGE` stands for one image: `[5, IMAGE, 7, 8]`. `TinyLVLM.inputs` expands
it to as many placeholders as the family wants, pads on the left and adds the family's other keys:

    tiny = tiny_lvlm("qwen3_vl")
    inputs = tiny.inputs([[5, IMAGE, 7, 8], [5, 6, IMAGE, 9, IMAGE, 3, 4]], images=(0, 1, 2))
    tiny.model.generate(**inputs, max_new_tokens=4)

Put some text between two images, as every real prompt does: it separates them in gemma3 and qwen's. All have 4
query heads on 2 key-value heads. The layers of mistral3 and half of gemma3's see no further than `WINDOW` columns;
gemma3 and qwen3_vl have heads wider than `hidden / 4`. Sizes other than `hidden=64` are its multiples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

VOCABULARY, IMAGE, PAD, SINK, VIDEO = 200, 199, 198, 197, 196  # text is what lies below 190
WINDOW = 8
ONE_IMAGE_A_SAMPLE = ("instructblip",)
NO_IMAGES = ("llama",)
PixelLists = list[list[Tensor]]  # of each sample, from their seeds


@dataclass(frozen=True)
class TinyLVLM:
    """A tiny model and how its inputs are made.

    Attributes:
        family: a name in `FAMILIES`.
        model: on the CPU, float32, in eval mode; `generate` is greedy and never ends early.
        image_tokens: placeholders of one image (0: the family reads none).
        image_shape: shape of one image's share of `pixel_values`.
        extras: from ids, mask and images to all keys but `input_ids` and `attention_mask`.
    """

    family: str
    model: Any
    image_tokens: int
    image_shape: tuple[int, ...]
    extras: Callable[[Tensor, Tensor, PixelLists], dict[str, Tensor]]

    def inputs(self, texts: list[list[int]], images: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Inputs of `model(...)` and `model.generate(...)`.

        Args:
            texts: token ids of each sample, `IMAGE` where an image is; without any, inputs of text alone.
            images: one seed for each `IMAGE` in reading order through the batch; by default 0, 1, 2 ...

        Raises:
            ValueError: as many seeds as images are needed, and not more images than the family takes.
        """
        counts = [text.count(IMAGE) for text in texts]
        seeds = list(range(sum(counts)) if images is None else images)
        if len(seeds) != sum(counts):
            raise ValueError(f"{sum(counts)} images in the texts, but {len(seeds)} seeds")
        if self.family in NO_IMAGES and seeds:
            raise ValueError(f"{self.family} reads no images")
        if self.family in ONE_IMAGE_A_SAMPLE and set(counts) != {1}:
            raise ValueError(f"{self.family} takes one image a sample, not {counts}")
        expanded = [[t for t in text for _ in range(self.image_tokens if t == IMAGE else 1)] for text in texts]
        width = max(map(len, expanded))
        ids = torch.tensor([[PAD] * (width - len(text)) + text for text in expanded])
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in expanded])
        drawn = iter(torch.randn(self.image_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds)
        samples = [[next(drawn) for _ in range(count)] for count in counts]
        return {"input_ids": ids, "attention_mask": mask} | self.extras(ids, mask, samples)

    @property
    def text_stack(self) -> Any:
        """The decoder without its head: the module that owns `layers`."""
        text = self.model.config.get_text_config()
        stacks = (m for m in self.model.modules() if isinstance(m, hf.PreTrainedModel) and hasattr(m, "layers"))
        return next(stack for stack in stacks if stack.config is text)


def tiny_lvlm(family: str, *, seed: int = 0, hidden: int = 64, layers: int = 4) -> TinyLVLM:
    """A tiny model of a family; the same for the same arguments, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, image_tokens, image_shape, extras = FAMILIES[family](hidden, layers)
        with torch.no_grad():
            for parameter in model.parameters():
                _fill(parameter)
    settings = {"eos_token_id": None, "bos_token_id": 1, "pad_token_id": PAD, "do_sample": False}
    settings["suppress_tokens"] = [VIDEO, SINK, PAD, IMAGE]  # so that an answer may be fed in again
    for module in (model, getattr(model, "language_model", None)):  # instructblip generates by the second
        if getattr(module, "generation_config", None) is not None:
            module.generation_config = hf.GenerationConfig(**settings)
    return TinyLVLM(family, model.float().eval(), image_tokens, image_shape, extras)


def _fill(parameter: nn.Parameter) -> None:
    """Wide enough for sharp attention; gates and queries that start at zero get values too."""
    if parameter.ndim > 1:
        parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
    else:
        parameter.add_(torch.randn_like(parameter), alpha=0.1)


@contextlib.contextmanager
def plant_sinks(
    tiny: TinyLVLM,
    *,
    image: Sequence[int] = (1,),
    dimensions: Sequence[int] = (5,),
    size: float = 1000.0,
    first_layer: int = 2,
) -> Iterator[None]:
    """Make tokens massive at the input of `first_layer` (1 or more) and, by the residual stream, of all after it.

    The tokens are every `SINK` in a text and those of each sample's image tokens whose ranks (from 0, through all
    images of the sample) are in `image`. They are recognised by token ids, which a hook on the embedding sees, so every
    padding, order and repetition of the samples is fine, and so is feeding an answer in again. Another hook adds
    `size` to `dimensions` of the output of the layer before `first_layer`; it comes before all hooks on the input.
    With one dimension, its value over the root mean square of the token is near `hidden ** 0.5`: above 20 for
    `hidden=512`.
    """
    stack = tiny.text_stack
    marked: dict[int, Tensor] = {}  # by length: a run without the image may go on in step with the one with it

    def find(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].ndim == 2:
            imaged = args[0] == IMAGE
            ranks = torch.where(imaged, imaged.cumsum(dim=1) - 1, -1)
            marked[args[0].shape[1]] = (args[0] == SINK) | torch.isin(ranks, torch.tensor(list(image)))

    def add(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        mine = marked[output.shape[1]]
        rows = mine.repeat_interleave(len(output) // len(mine), dim=0)  # beams, if embedded before them
        spike = output.new_zeros(output.shape[-1])
        spike[list(dimensions)] = size
        return output + rows[..., None] * spike

    embedding = tiny.model.get_input_embeddings()
    hooks = [embedding.register_forward_pre_hook(find), stack.layers[first_layer - 1].register_forward_hook(add)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _text(config: type, hidden: int, layers: int, **own: Any) -> Any:
    shared = {"vocab_size": VOCABULARY, "hidden_size": hidden, "intermediate_size": 2 * hidden}
    shared |= {"num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2}
    shared |= {"max_position_embeddings": 512, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2}
    return config(**shared | own)


def _tower(config: type, side: int, **own: Any) -> Any:
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return config(**shared | {"image_size": side, "patch_size": 14} | own)


def _flat(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    """One image after the other, whosesoever they are."""
    flat = [pixels for sample in samples for pixels in sample]
    return {"pixel_values": torch.stack(flat)} if flat else {}


def _sized(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    flat = _flat(ids, mask, samples)
    sizes = [values.shape[-2:] for values in flat.get("pixel_values", [])]
    return flat | {"image_sizes": torch.tensor(sizes)} if flat else {}


def _typed(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    return _flat(ids, mask, samples) | {"token_type_ids": (ids == IMAGE).long()}


def _prefixed(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    """The whole prompt is a prefix, which may look ahead; without its types, that would depend on padding."""
    return _flat(ids, mask, samples) | {"token_type_ids": torch.zeros_like(ids)}


def _asked(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    question = torch.tensor([[4, 5, 6]] * len(ids))
    asked = {"qformer_input_ids": question, "qformer_attention_mask": torch.ones_like(question)}
    return _flat(ids, mask, samples) | asked


def _rows(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    """A row of images for each sample, filled up with zeros."""
    shape = (len(samples), max(map(len, samples)))
    if shape[1] == 0:
        return {}
    values, valid = torch.zeros(*shape, 3, 56, 56), torch.zeros(*shape, 56, 56, dtype=torch.bool)
    for row, sample in enumerate(samples):
        for column, pixels in enumerate(sample):
            values[row, column], valid[row, column] = pixels, True
    return {"pixel_values": values, "pixel_attention_mask": valid}


def _patches(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    """All patches one after the other; the grids say which are whose."""
    types = {"mm_token_type_ids": (ids == IMAGE).int()}
    flat = [pixels for sample in samples for pixels in sample]
    return (
        types | {"pixel_values": torch.cat(flat), "image_grid_thw": torch.tensor([GRID] * len(flat))} if flat else types
    )


def _crossed(ids: Tensor, mask: Tensor, samples: PixelLists) -> dict[str, Tensor]:
    """Mllama: one tile an image; a text token attends to the last image before it."""
    shape = (len(samples), max(map(len, samples)))
    if shape[1] == 0:
        return {}
    values, ratios = torch.zeros(*shape, 1, 3, 28, 28), torch.zeros(shape, dtype=torch.long)
    for row, sample in enumerate(samples):
        for column, pixels in enumerate(sample):
            values[row, column, 0], ratios[row, column] = pixels, 1
    last = (ids == IMAGE).cumsum(dim=1)[:, :, None] - 1  # batch tokens 1
    seen = (last == torch.arange(shape[1])).long() * mask[:, :, None]  # batch tokens images
    seen = {"cross_attention_mask": seen[..., None], "aspect_ratio_mask": ratios[..., None].clone()}
    return {"pixel_values": values, "aspect_ratio_ids": ratios} | seen


Parts = tuple[nn.Module, int, tuple[int, ...], Callable[[Tensor, Tensor, PixelLists], dict[str, Tensor]]]


def _llava(hidden: int, layers: int) -> Parts:
    text, tower = _text(hf.LlamaConfig, hidden, layers), _tower(hf.CLIPVisionConfig, 28)
    config = hf.LlavaConfig(vision_config=tower, text_config=text, image_token_id=IMAGE, image_seq_length=4)
    return hf.LlavaForConditionalGeneration(config), 4, (3, 28, 28), _flat


def _llava_next(hidden: int, layers: int) -> Parts:
    text, tower = _text(hf.LlamaConfig, hidden, layers), _tower(hf.CLIPVisionConfig, 28)
    own = {"image_token_id": IMAGE, "image_grid_pinpoints": [[28, 28]], "image_seq_length": 4}
    config = hf.LlavaNextConfig(vision_config=tower, text_config=text, **own)
    return hf.LlavaNextForConditionalGeneration(config), 10, (2, 3, 28, 28), _sized


def _llava_onevision(hidden: int, layers: int) -> Parts:
    text = _text(hf.Qwen2Config, hidden, layers)
    tower = _tower(hf.SiglipVisionConfig, 28, vision_use_head=False)
    own = {"image_token_id": IMAGE, "video_token_id": VIDEO, "image_grid_pinpoints": [[28, 28]]}
    config = hf.LlavaOnevisionConfig(vision_config=tower, text_config=text, **own)
    return hf.LlavaOnevisionForConditionalGeneration(config), 10, (2, 3, 28, 28), _sized


def _rope(*sections: int, **own: Any) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": list(sections), "rope_theta": 1e4} | own


GRID = [1, 4, 4]  # patches of an image of the families whose images may have any size; 2 x 2 make a token
QWEN = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 194, "vision_end_token_id": 195}


def _qwen2_vl(hidden: int, layers: int) -> Parts:
    eighth = hidden // 64
    text = _text(hf.Qwen2VLTextConfig, hidden, layers, rope_parameters=_rope(2 * eighth, 3 * eighth, 3 * eighth))
    tower = {"depth": 2, "embed_dim": 32, "hidden_size": hidden, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = hf.Qwen2VLConfig(text_config=text.to_dict(), vision_config=tower, **QWEN)
    return hf.Qwen2VLForConditionalGeneration(config), 4, (16, 3 * 2 * 14 * 14), _patches


def _qwen2_5_vl(hidden: int, layers: int) -> Parts:
    eighth = hidden // 64
    text = _text(hf.Qwen2_5_VLTextConfig, hidden, layers, rope_parameters=_rope(2 * eighth, 3 * eighth, 3 * eighth))
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": hidden}
    tower |= {"patch_size": 14, "window_size": 28, "fullatt_block_indexes": [1]}
    config = hf.Qwen2_5_VLConfig(text_config=text.to_dict(), vision_config=tower, **QWEN)
    return hf.Qwen2_5_VLForConditionalGeneration(config), 4, (16, 3 * 2 * 14 * 14), _patches


def _qwen3_vl(hidden: int, layers: int) -> Parts:
    wide = 24 * hidden // 64
    text = _text(hf.Qwen3VLTextConfig, hidden, layers, head_dim=wide, rope_parameters=_rope(*[wide // 6] * 3))
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": hidden}
    tower |= {"patch_size": 14, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = hf.Qwen3VLConfig(text_config=text.to_dict(), vision_config=tower, **QWEN)
    return hf.Qwen3VLForConditionalGeneration(config), 4, (16, 3 * 2 * 14 * 14), _patches


def _glm4v(hidden: int, layers: int) -> Parts:
    eighth = hidden // 64
    rope = _rope(eighth, eighth, 2 * eighth, partial_rotary_factor=0.5)
    text = _text(hf.Glm4vTextConfig, hidden, layers, rope_parameters=rope)
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": hidden}
    tower |= {"patch_size": 14, "image_size": 56}
    own = {"image_start_token_id": 192, "image_end_token_id": 193, "video_start_token_id": 194}
    own |= {"image_token_id": IMAGE, "video_token_id": VIDEO, "video_end_token_id": 195}
    config = hf.Glm4vConfig(text_config=text.to_dict(), vision_config=tower, **own)
    return hf.Glm4vForConditionalGeneration(config), 4, (16, 3 * 2 * 14 * 14), _patches


def _paligemma(hidden: int, layers: int) -> Parts:
    text = _text(hf.GemmaConfig, hidden, layers, head_dim=hidden // 4)
    tower = _tower(hf.SiglipVisionConfig, 28, vision_use_head=False)
    own = {"image_token_id": IMAGE, "projection_dim": hidden, "hidden_size": hidden, "vocab_size": VOCABULARY}
    own |= {"tie_word_embeddings": False}  # tied, a tiny one says its last word again and again
    config = hf.PaliGemmaConfig(vision_config=tower, text_config=text, **own)
    return hf.PaliGemmaForConditionalGeneration(config), 4, (3, 28, 28), _prefixed


def _gemma3(hidden: int, layers: int) -> Parts:
    types = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]
    wide = hidden // 2
    own = {"head_dim": wide, "query_pre_attn_scalar": wide, "sliding_window": WINDOW, "layer_types": types}
    text = _text(hf.Gemma3TextConfig, hidden, layers, **own)
    tower = _tower(hf.SiglipVisionConfig, 56, vision_use_head=False)
    own = {"mm_tokens_per_image": 4, "image_token_id": IMAGE, "boi_token_index": 194, "eoi_token_index": 195}
    own |= {"tie_word_embeddings": False}
    config = hf.Gemma3Config(vision_config=tower, text_config=text, **own)
    return hf.Gemma3ForConditionalGeneration(config), 4, (3, 56, 56), _typed


def _idefics3(hidden: int, layers: int) -> Parts:
    text, tower = _text(hf.LlamaConfig, hidden, layers), _tower(hf.Idefics3VisionConfig, 56)
    config = hf.Idefics3Config(vision_config=tower, text_config=text, image_token_id=IMAGE, scale_factor=2)
    return hf.Idefics3ForConditionalGeneration(config), 4, (3, 56, 56), _rows


def _smolvlm(hidden: int, layers: int) -> Parts:
    text, tower = _text(hf.LlamaConfig, hidden, layers), _tower(hf.SmolVLMVisionConfig, 56)
    config = hf.SmolVLMConfig(vision_config=tower, text_config=text, image_token_id=IMAGE, scale_factor=2)
    return hf.SmolVLMForConditionalGeneration(config), 4, (3, 56, 56), _rows


def _internvl(hidden: int, layers: int) -> Parts:
    text = _text(hf.Qwen2Config, hidden, layers)
    tower = _tower(hf.InternVLVisionConfig, 0, image_size=[56, 56], patch_size=[14, 14])
    config = hf.InternVLConfig(vision_config=tower, text_config=text, image_token_id=IMAGE, image_seq_length=4)
    return hf.InternVLForConditionalGeneration(config), 4, (3, 56, 56), _flat


def _mistral3(hidden: int, layers: int) -> Parts:
    text = _text(hf.MistralConfig, hidden, layers, sliding_window=WINDOW, head_dim=hidden // 4)
    tower = _tower(hf.PixtralVisionConfig, 56)
    config = hf.Mistral3Config(vision_config=tower, text_config=text, image_token_id=IMAGE, spatial_merge_size=2)
    return hf.Mistral3ForConditionalGeneration(config), 4, (3, 56, 56), _sized


def _instructblip(hidden: int, layers: int) -> Parts:
    tower = _tower(hf.InstructBlipVisionConfig, 28, initializer_range=0.02)
    asker = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    asker |= {"intermediate_size": 64, "encoder_hidden_size": 32, "max_position_embeddings": 32}
    text = _text(hf.LlamaConfig, hidden, layers)
    parts = {"vision_config": tower, "qformer_config": hf.InstructBlipQFormerConfig(**asker), "text_config": text}
    config = hf.InstructBlipConfig(**parts, num_query_tokens=4, image_token_index=IMAGE)
    return hf.InstructBlipForConditionalGeneration(config), 4, (3, 28, 28), _asked


def _mllama(hidden: int, layers: int) -> Parts:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    crossed = [layer for layer in range(layers) if layer % 2]
    text = _text(hf.MllamaTextConfig, hidden, layers, cross_attention_layers=crossed, rope_parameters=rope)
    tower = {"hidden_size": 32, "attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2}
    tower |= {"num_global_layers": 1, "image_size": 28, "patch_size": 14, "max_num_tiles": 1}
    tower |= {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]], "vision_output_dim": 64}
    config = hf.MllamaConfig(vision_config=tower, text_config=text.to_dict(), image_token_index=IMAGE)
    return hf.MllamaForConditionalGeneration(config), 1, (3, 28, 28), _crossed


def _llama(hidden: int, layers: int) -> Parts:
    return hf.LlamaForCausalLM(_text(hf.LlamaConfig, hidden, layers)), 0, (0,), _flat


def _qwen3_5(hidden: int, layers: int) -> Parts:
    """Every second layer is linear attention."""
    types = ["full_attention" if layer % 2 else "linear_attention" for layer in range(layers)]
    own = {"head_dim": hidden // 4, "layer_types": types, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    own |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    eighth = hidden // 64
    own |= {"rope_parameters": _rope(2 * eighth, 3 * eighth, 3 * eighth, partial_rotary_factor=1.0)}
    text = _text(hf.Qwen3_5TextConfig, hidden, layers, **own)
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": hidden}
    tower |= {"patch_size": 14, "num_position_embeddings": 16}
    config = hf.Qwen3_5Config(text_config=text.to_dict(), vision_config=tower, **QWEN)
    return hf.Qwen3_5ForConditionalGeneration(config), 4, (16, 3 * 2 * 14 * 14), _patches


FAMILIES: dict[str, Callable[[int, int], Parts]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
    "mistral3": _mistral3,
    "instructblip": _instructblip,
    "glm4v": _glm4v,
    "mllama": _mllama,
    "llama": _llama,
    "qwen3_5": _qwen3_5,
}

#: One family of each kind: plain causal; sliding windows and bidirectional images; multimodal rotary positions;
#: Q-Former.
REPRESENTATIVES = ("llava", "gemma3", "qwen2_vl", "instructblip")


def by_kind(families: Iterable[str], representatives: Collection[str] = REPRESENTATIVES) -> list[Any]:
    """Families as test parameters; the ones that a representative stands for run in `make test-full`."""
    return [one if one in representatives else pytest.param(one, marks=pytest.mark.full) for one in families]
