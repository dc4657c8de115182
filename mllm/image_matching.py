"""Similarity of a question and an image, and the relevance of image patches to the question.

Interventions that change the image according to the question use a matching model in addition to the LVLM:

- BLIP fine-tuned for image-text matching, as AGLA's authors do: `BlipMatcher`;
- a contrastive model of open_clip, with our own relevance map: `OpenClipMatcher`.

Both squeeze the image to the square that they were trained on, without a crop, so the map spans all of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import open_clip
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoProcessor, BlipForImageTextRetrieval

__all__ = ["BlipMatcher", "Match", "Matcher", "OpenClipMatcher", "load_matcher"]

#: Longest question that LAVIS's BLIP reads, in words and in tokens.
_WORDS, _TOKENS = 50, 35


@dataclass(frozen=True)
class Match:
    """Result of a matching model for an image and a question.

    Attributes:
        similarity: cosine of their features, -1 to 1.
        relevance: how much each patch, (rows, columns) from the image's top left, contributes to the match; at least 0,
            without a unit, on the CPU.

    Raises:
        ValueError: a value is not finite.

    Example:
        >>> Match(0.4, torch.rand(24, 24)).relevance.shape
        torch.Size([24, 24])
    """

    similarity: float
    relevance: Float[Tensor, "rows columns"]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.similarity) and bool(self.relevance.isfinite().all())):
            raise ValueError(
                "the matching model gave numbers that are not finite; if its dtype is float16, try float32 or bfloat16"
            )


@runtime_checkable
class Matcher(Protocol):
    """A loaded matching model."""

    def to(self, device: torch.device | str) -> None:
        """Move it."""
        ...

    def match(self, image: Image.Image, question: str) -> Match:
        """Look at an image with a question in mind; with gradients inside, and none outside.

        Raises:
            ValueError: the question has no words.
        """
        ...


class BlipMatcher:
    """BLIP for image-text matching, and GradCAM of one block of its cross-attention.

    With A the attention of the question's tokens to the patches (head, token, patch) and g the gradient of the score
    for "they match" with respect to it, a patch's relevance is the mean over heads and the question's own tokens of
    A * max(g, 0).

    Source: Tiong et al. 2022, "Plug-and-Play VQA", arXiv:2210.08773; salesforce/LAVIS@28d9d9e,
    `blip_image_text_matching.py`, whose questions are cleaned and cut likewise. As there, the first token is BLIP's
    [ENC] where attention crosses; `BlipForImageTextRetrieval` alone would leave [CLS]. The tokenizers that
    transformers' checkpoints come with do not know [ENC], which is the last of two rows that the embedding has more.

    Args:
        model: the model; it is frozen and put into eval mode.
        processor: a `BlipProcessor`.
        block: index of the block of the text encoder, from 0. The last would not do: the score is read from the first
            token, and what the question's own tokens attend to there never reaches it.

    Raises:
        ValueError: the text encoder has no such block, or it is the last.
    """

    def __init__(self, model: BlipForImageTextRetrieval, processor: Any, *, block: int = 6) -> None:
        layers = model.text_encoder.encoder.layer
        if not 0 <= block < len(layers) - 1:
            raise ValueError(
                f"this BLIP's text encoder has maps in its blocks 0 to {len(layers) - 2} (not in the last, which reads "
                f"the score from its first token only); got block={block}"
            )
        self.model, self.processor = model.eval().requires_grad_(False), processor
        self._attention: nn.Module = layers[block].crossattention.self
        tokenizer = processor.tokenizer
        spare = model.text_encoder.get_input_embeddings().num_embeddings - len(tokenizer)
        added = tokenizer.get_added_vocab().get("[ENC]")
        self._joint_token = added if added is not None else len(tokenizer) + 1 if spare == 2 else None

    def to(self, device: torch.device | str) -> None:
        """Move it."""
        self.model.to(device)

    def match(self, image: Image.Image, question: str) -> Match:
        """Look at an image with a question in mind; see `Matcher`."""
        model, cleaned = self.model, _cleaned(question)
        pixels = self.processor.image_processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
        words = self.processor.tokenizer(cleaned, truncation=True, max_length=_TOKENS, return_tensors="pt")
        tokens, mask = words["input_ids"].to(model.device), words["attention_mask"].to(model.device)
        if tokens.shape[1] < 3:  # the first and the last are the tokenizer's own
            raise ValueError(f"the question {question!r} has no words that an image could be matched with")
        with torch.inference_mode(False), torch.no_grad():
            seen = model.vision_model(pixel_values=pixels.to(model.device, model.dtype)).last_hidden_state
            read = model.text_encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
            similarity = F.cosine_similarity(model.vision_proj(seen[:, 0]), model.text_proj(read[:, 0]))
        relevance = self._gradcam(seen, tokens, mask)[1:-1].mean(dim=0)  # patches
        patch = model.config.vision_config.patch_size
        rows, columns = (side // patch for side in pixels.shape[-2:])
        return Match(similarity.item(), relevance.view(rows, columns).cpu())

    def _gradcam(
        self, seen: Float[Tensor, "1 tokens width"], tokens: Tensor, mask: Tensor
    ) -> Float[Tensor, "words patches"]:
        """Mean over heads of attention times its positive gradient, for every token of the question."""
        if self._joint_token is not None:
            tokens = tokens.clone()
            tokens[:, 0] = self._joint_token
        kept: list[Tensor] = []
        hook = self._attention.register_forward_hook(lambda module, args, output: kept.append(output[1]))
        try:
            with torch.inference_mode(False), torch.enable_grad():
                joint = self.model.text_encoder(
                    input_ids=tokens,
                    attention_mask=mask,
                    encoder_hidden_states=seen.requires_grad_(),
                    encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
                ).last_hidden_state
                score = self.model.itm_head(joint[:, 0])[:, 1].sum()
                (gradient,) = torch.autograd.grad(score, kept[0])
        finally:
            hook.remove()
        attention = kept[0].detach()[0, :, :, 1:]  # heads words patches, without the image's class token
        return (attention.float() * gradient[0, :, :, 1:].float().clamp(min=0)).mean(dim=0)


class OpenClipMatcher:
    """A contrastive model of open_clip, and gradient times activation of its patches.

    The map is ours, not the authors': with x the patch tokens that enter the attention of the last block of the image's
    transformer and s the cosine of image and question, a patch's relevance is max(0, x . ds/dx). What leaves that block
    would not do, as most of these models read their class token only; nor what enters it before its norm, as
    x . ds/dx is zero for all that a norm follows.

    Args:
        model: of open_clip, with a vision transformer for the image; it is frozen and put into eval mode.
        tokenizer: its tokenizer.
        preprocess: from an image to (3, height, width), by squeezing.

    Raises:
        ValueError: the model does not encode images by a transformer on a grid of patches.
    """

    def __init__(self, model: Any, tokenizer: Callable[..., Tensor], preprocess: Callable[..., Tensor]) -> None:
        visual = model.visual
        trunk: Any = getattr(visual, "trunk", None)
        if hasattr(visual, "transformer"):
            blocks, grid = visual.transformer.resblocks, getattr(visual, "grid_size", None)
        else:
            blocks, grid = (
                getattr(trunk, "blocks", [None]),
                getattr(getattr(trunk, "patch_embed", None), "grid_size", None),
            )
        norm = getattr(blocks[-1], "ln_1", getattr(blocks[-1], "norm1", None))
        if grid is None or norm is None:
            raise ValueError(
                f"the image tower {type(visual).__name__} has no transformer on a grid of patches with norms before "
                "its attention, which the map of relevance needs; choose an architecture whose name begins with ViT"
            )
        self._norm: nn.Module = norm
        self._grid: tuple[int, int] = grid
        self.model, self.tokenizer, self.preprocess = model.eval().requires_grad_(False), tokenizer, preprocess

    def to(self, device: torch.device | str) -> None:
        """Move it."""
        self.model.to(device)

    def match(self, image: Image.Image, question: str) -> Match:
        """Look at an image with a question in mind; see `Matcher`."""
        if not question.strip():
            raise ValueError(f"the question {question!r} has no words that an image could be matched with")
        entered: list[Tensor] = []

        def enter(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            entered.append(output.detach().requires_grad_())
            return entered[0]

        weight = next(self.model.parameters())
        hook = self._norm.register_forward_hook(enter)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                pixels = self.preprocess(image.convert("RGB"))[None].to(weight.device, weight.dtype)
                seen = self.model.encode_image(pixels)
                read = self.model.encode_text(self.tokenizer([question]).to(weight.device))
                similarity = F.cosine_similarity(seen, read).sum()
                (gradient,) = torch.autograd.grad(similarity, entered[0])
        finally:
            hook.remove()
        rows, columns = self._grid
        # one image, so (1, tokens, width) and (tokens, 1, width) are one; class and register tokens come first
        relevance = (entered[0].detach().float() * gradient.float()).sum(dim=-1).view(-1)[-rows * columns :]
        return Match(similarity.item(), relevance.clamp(min=0).view(rows, columns).cpu())


def load_matcher(
    name: str, *, block: int = 6, dtype: Literal["float32", "float16", "bfloat16"] = "float32"
) -> BlipMatcher | OpenClipMatcher:
    """Load a matching model onto the CPU.

    Args:
        name: a folder or hub id of BLIP for image-text matching in transformers' form with safetensors; or
            `open_clip:ARCH:WEIGHTS`, the weights being a file or one of open_clip's tags, or
            `open_clip:local-dir:FOLDER` or `open_clip:hf-hub:ID`.
        block: see `BlipMatcher`; open_clip's models have no use for it.
        dtype: of the weights; half precision is for accelerators.

    Raises:
        ValueError: there is no such model, or it is not a matching model.
    """
    number = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    with torch.inference_mode(False):
        kind, _, rest = name.partition(":")
        if kind == "open_clip":
            return _load_open_clip(name, rest, number)
        return _load_blip(name, block, number)


def _load_blip(name: str, block: int, dtype: torch.dtype) -> BlipMatcher:
    advice = (
        "Give a folder or hub id of BLIP fine-tuned for image-text matching, in transformers' form with safetensors: "
        "Salesforce/blip-itm-large-coco is AGLA's (`hf download Salesforce/blip-itm-large-coco --local-dir FOLDER`, "
        "then matcher=FOLDER); or open_clip:ARCH:WEIGHTS"
    )
    safe: dict[str, Any] = {"trust_remote_code": False}
    loaded: Any
    try:
        config = AutoConfig.from_pretrained(name, **safe)
        if config.model_type != "blip":
            raise ValueError(f"it is of the type {config.model_type!r}, not 'blip'")
        processor = AutoProcessor.from_pretrained(name, **safe)
        loaded = BlipForImageTextRetrieval.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"cannot load the matching model {name!r}: {why}. {advice}") from error
    model, loading = loaded
    missing = sorted(key for key in loading["missing_keys"] if "position_ids" not in key)
    if missing:
        raise ValueError(
            f"the BLIP in {name!r} is not one for image-text matching: it lacks {len(missing)} weights, such as "
            f"{missing[0]}. {advice}"
        )
    return BlipMatcher(model, processor, block=block)


def _load_open_clip(name: str, rest: str, dtype: torch.dtype) -> OpenClipMatcher:
    located = rest.startswith(("local-dir:", "hf-hub:"))
    architecture, _, weights = (rest, "", "") if located else rest.partition(":")
    if not located and not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(
            f"the matching model {name!r} has no weights; write open_clip:ARCH:WEIGHTS, the weights being a file "
            f"(FILE.safetensors) or a tag that can be downloaded (of {architecture or 'no architecture'}: {tags}), or "
            "open_clip:local-dir:FOLDER with open_clip_config.json and open_clip_model.safetensors"
        )
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            architecture, weights or None, image_resize_mode="squash", weights_only=True
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"cannot load the matching model {name!r} of open_clip: {error}. Give open_clip:ARCH:FILE.safetensors with "
            "one of the architectures of open_clip.list_models(), or open_clip:local-dir:FOLDER"
        ) from error
    return OpenClipMatcher(model.to(dtype), tokenizer, preprocess)


def _cleaned(question: str) -> str:
    """A question as LAVIS's `BlipCaptionProcessor` has it: lower case, little punctuation, not too long."""
    plain = re.sub(r"[.!\"()*#:;~]", " ", question.lower())
    return " ".join(plain.split()[:_WORDS])
