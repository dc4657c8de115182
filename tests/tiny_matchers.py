"""Tiny matching models with random weights, saved as a user would have them; pytest finds this file by `pythonpath`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import nn

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "there", "a", "red", "square", "?", "in", "the"]
WORDS += ["image", "cat", "dog"]
GRID = 8  # patches a side


def save_blip(folder: Path, *, spare: int = 2) -> Path:
    """BLIP for image-text matching with its processor.

    Args:
        folder: created.
        spare: rows of the embedding beyond the tokenizer's words.
    """
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = hf.BertTokenizer(vocab=str(folder / "vocab.txt"))
    text = {"vocab_size": len(WORDS) + spare, "hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 32}
    text |= {"num_attention_heads": 2, "bos_token_id": 0, "sep_token_id": 3, "max_position_embeddings": 64}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": 4 * GRID, "patch_size": 4}
    config = hf.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=8)
    model = _filled(lambda: hf.BlipForImageTextRetrieval(config))
    model.vision_model.embeddings.position_embedding.data.zero_()  # only its contents tell a patch from another
    model.save_pretrained(folder)
    size = {"height": 4 * GRID, "width": 4 * GRID}
    hf.BlipProcessor(hf.BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder


def save_open_clip(folder: Path, *, pool: str = "tok") -> Path:
    """A contrastive model of open_clip: `open_clip_config.json`, `open_clip_model.safetensors`.

    Args:
        folder: created.
        pool: what the image's features are read from: `"tok"`, the class token, or `"avg"`, the mean of the patches.
    """
    folder.mkdir()
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 4 * GRID, "patch_size": 4, "width": 16, "head_width": 8, "layers": 2, "pool_type": pool}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    model = _filled(lambda: open_clip.CLIP(**config), seed=1)
    model.visual.positional_embedding.data[1:] = 0
    model.visual.proj.data.neg_()  # so that images and questions of the tests are similar
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def _filled(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """With weights wide enough for sharp attention; the same whatever was drawn before."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.8 / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()
