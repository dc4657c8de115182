"""Evaluation of the scene model after training: captions, yes/no questions and attention sinks.

These are short checks; `regard.mllm.benchmarks` has the benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from ....datasets.scene_captions import CAPTION_PROMPTS, probing_questions
from ....datasets.scene_words import PATCH_PX, word_ids
from ....datasets.scenes import CLASSES, Scene, Scenes, patch_classes
from ....mllm.benchmarks import Sample
from ....mllm.session.sinks import sink_strength
from ...evaluate.scene_benchmarks import SceneCaptions
from .network import SINK_DIMENSION, SINK_THRESHOLD

__all__ = ["caption_metrics", "caption_scenes", "evaluate_model", "sink_statistics", "yes_no_metrics"]

_CAPTION_PROMPT = f"user : <image> {CAPTION_PROMPTS[0]} assistant :"
_BATCH = 50
_MAX_TOKENS = 60
_POPE_SCENES = 200
_SINK_SCENES = 50


def evaluate_model(model: LlavaForConditionalGeneration, processor: Any, count: int, seed: int = 0) -> dict[str, Any]:
    """All metrics, on held-out scenes of the split "natural".

    Args:
        model: in eval mode.
        processor: the model's own.
        count: number of scenes to caption; at most 200 of them are used for questions, and 50 for sinks.
        seed: of the scenes.
    """
    scenes = list(Scenes("natural", count, seed))
    captions = caption_scenes(model, processor, scenes)
    return {
        "captions": caption_metrics(scenes, captions),
        "questions": yes_no_metrics(model, processor, scenes[:_POPE_SCENES], seed),
        "sinks": sink_statistics(model, processor, scenes[:_SINK_SCENES], captions[:_SINK_SCENES]),
    }


def caption_scenes(model: LlavaForConditionalGeneration, processor: Any, scenes: Sequence[Scene]) -> list[str]:
    """A caption of each scene, greedy, of at most 60 tokens."""
    captions: list[str] = []
    for part in _parts(scenes):
        inputs = _inputs(processor, part, [_CAPTION_PROMPT] * len(part), model.device)
        generated = model.generate(**inputs, max_new_tokens=_MAX_TOKENS, do_sample=False)
        captions += processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return captions


def caption_metrics(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, float]:
    """CHAIR, recall and length, in percent and words.

    Source: Rohrbach et al. 2018, arXiv:1809.02156. "chair_s" is the share of captions that mention an absent
    object, "chair_i" the share of mentions of absent objects, "recall" the share of present objects that is mentioned.

    Example:
        >>> from regard.datasets.scenes import SceneObject
        >>> scene = Scene("park", (SceneObject("dog", (0, 0, 32, 32)), SceneObject("kite", (32, 0, 64, 32))), 0)
        >>> caption_metrics([scene], ["a dog. next to the dog there is a frisbee."])["recall"]
        50.0
    """
    benchmark = SceneCaptions()
    asked = [Sample(id="", image="", question="", truth=list(scene.names)) for scene in scenes]
    counted = [benchmark.count(sample, caption)["scenes"] for sample, caption in zip(asked, captions, strict=True)]
    sums = {name: np.array([sum(one.numbers[name] for one in counted)]) for name in counted[0].numbers}
    figures = {name.removesuffix("_percent"): float(value[0]) for name, value in benchmark.metrics(sums).items()}
    return {**figures, "things": float(np.mean([len(set(one.parsed)) for one in counted]))}


@torch.no_grad()
def yes_no_metrics(
    model: LlavaForConditionalGeneration, processor: Any, scenes: Sequence[Scene], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Accuracy, F1 and share of yes in percent, as in POPE: three yes and three no questions per scene."""
    yes, no = (word_ids(word)[0] for word in ("yes", "no"))
    figures = {}
    for number, kind in enumerate(("random", "popular", "adversarial")):
        generators = (np.random.default_rng([seed, 20 + number, index]) for index in range(len(scenes)))
        asked = [
            (scene, question)
            for scene, rng in zip(scenes, generators, strict=True)
            for question in probing_questions(scene, rng, kind)  # type: ignore[arg-type]
        ]
        predicted_yes: list[Bool[Tensor, " questions"]] = []
        for part in _parts(asked):
            prompts = [f"user : <image> {question.text} assistant :" for _, question in part]
            inputs = _inputs(processor, [scene for scene, _ in part], prompts, model.device)
            last = model(**inputs, logits_to_keep=1).logits[:, -1]
            predicted_yes.append(last[:, yes] > last[:, no])
        answers = torch.cat(predicted_yes).cpu().numpy()
        truth = np.array([question.truth for _, question in asked])
        hits = int((answers & truth).sum())
        figures[kind] = {
            "accuracy": 100 * float((answers == truth).mean()),
            "f1": 100 * 2 * hits / max(1, int(answers.sum() + truth.sum())),
            "yes": 100 * float(answers.mean()),
        }
    return figures


@torch.no_grad()
def sink_statistics(
    model: LlavaForConditionalGeneration, processor: Any, scenes: Sequence[Scene], captions: Sequence[str]
) -> dict[str, Any]:
    """Positions of massive activations, and the attention to them, for each decoder layer.

    Shares are 0-1. "sinks" has the share of tokens whose sink strength is above the threshold, by kind of token;
    "attention" is the attention of the caption's tokens to <bos>, to image tokens that are sinks, and to the other
    image tokens, mean over tokens and heads; "heads" has the second of these by head.
    """
    background = torch.from_numpy(
        np.stack([patch_classes(scene, PATCH_PX).ravel() == len(CLASSES) for scene in scenes])
    )
    before = {name: getattr(model.config, name)._attn_implementation for name in ("text_config", "vision_config")}
    model.set_attn_implementation("eager")
    kinds: dict[str, list[Tensor]] = {name: [] for name in ("bos", "background", "things", "words")}
    masses: dict[str, list[Tensor]] = {name: [] for name in ("bos", "sinks", "others")}
    try:
        for scene, caption, empty in zip(scenes, captions, background, strict=True):
            inputs = _inputs(processor, [scene], [f"{_CAPTION_PROMPT} {caption}"], model.device)
            start = _inputs(processor, [scene], [_CAPTION_PROMPT], model.device)["input_ids"].shape[1]
            seen = model(**inputs, output_hidden_states=True, output_attentions=True)
            image: Int[Tensor, " patches"] = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
            inputs_of_layers = seen.hidden_states[:-1]
            sunk = torch.stack([sink_strength(h[0], [SINK_DIMENSION]) > SINK_THRESHOLD for h in inputs_of_layers])
            plain = torch.ones_like(sunk[0]).index_fill(0, image, False)
            plain[0] = False
            empty = empty.to(image.device)
            members: dict[str, Any] = {
                "bos": 0,
                "background": image[empty],
                "things": image[~empty],
                "words": plain.nonzero()[:, 0],
            }
            for name, positions in members.items():
                kinds[name].append(sunk[:, positions].reshape(len(sunk), -1).float().mean(dim=1))
            given: Float[Tensor, "layers heads words keys"] = torch.stack([a[0, :, start:] for a in seen.attentions])
            on_image, sink = given[..., image], sunk[:, image][:, None, None]
            masses["bos"].append(given[..., 0].mean(dim=2))
            masses["sinks"].append((on_image * sink).sum(dim=-1).mean(dim=2))
            masses["others"].append((on_image * ~sink).sum(dim=-1).mean(dim=2))
    finally:
        model.set_attn_implementation(before)
    mean = {name: torch.stack(values).mean(dim=0) for name, values in masses.items()}  # layers heads
    return {
        "sinks": {name: _rounded(torch.stack(values).mean(dim=0)) for name, values in kinds.items()},
        "attention": {name: _rounded(values.mean(dim=1)) for name, values in mean.items()},
        "heads": [_rounded(layer) for layer in mean["sinks"]],
    }


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _inputs(processor: Any, scenes: Sequence[Scene], prompts: list[str], device: torch.device) -> Any:
    rendered = [scene.image() for scene in scenes]
    return processor(images=rendered, text=prompts, padding=True, return_tensors="pt").to(device)


def _rounded(values: Float[Tensor, " values"]) -> list[float]:
    return [round(float(value), 4) for value in values]
