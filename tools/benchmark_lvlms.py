"""The part of `regard benchmark` for vision-language models: what methods cost at the prompt and at every new token.

The baseline is a session without methods. All take turns, and every new token is timed by itself, so that medians and
ratios hold whatever else the machine does. Memory is what reading the prompt and four new tokens hold at their peak
beyond the weights.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from ..mllm import LVLM, intervene, parse_interventions
from .measure import peak_bytes, quartiles, spread
from .settings import BenchmarkSettings

__all__ = ["lines", "measure"]

_IMAGE, _SINKS, _DIMENSION = 576, (0, 30, 180, 400), 5


def measure(settings: BenchmarkSettings) -> list[dict[str, Any]]:
    """A row for every model and method, the baseline first.

    Raises:
        ValueError: a model or method is unknown, or cannot work there.
    """
    arms: dict[str, Any] = {"baseline": ()} | {fix: parse_interventions(fix) for fix in settings.fixes}
    rows = []
    for name in settings.lvlms:
        model, inputs = _random(settings) if name == "random" else _loaded(name, settings)
        parameters = sum(weight.numel() for weight in model.parameters())
        sys.stderr.write(f"{name}: {parameters / 1e6:.1f} million weights, {inputs['input_ids'].shape[1]} tokens\n")
        found: dict[str, dict[str, list[float]]] = {arm: {"prompt": [], "token": []} for arm in arms}
        order, notes = list(arms), dict.fromkeys(arms, "")
        for turn in range(settings.repeats + 1):
            for arm in order:
                begin, stamps, notes[arm] = _run(model, inputs, arms[arm], settings.new_tokens)
                if turn:  # the first warms up
                    found[arm]["prompt"].append(stamps[0] - begin)
                    steps = [after - before for before, after in itertools.pairwise(stamps)]
                    found[arm]["token"].append(statistics.median(steps))
            order = order[1:] + order[:1]
        for arm, times in found.items():
            mb = peak_bytes(partial(_run, model, inputs, arms[arm], 4), settings.device) / 1e6
            first = found["baseline"]
            rows.append(
                {
                    "model": name,
                    "method": arm,
                    "parameters": parameters,
                    "prompt_tokens": inputs["input_ids"].shape[1],
                    "mb": mb,
                    "ms": {part: 1e3 * statistics.median(times[part]) for part in times},
                    "ratio": {part: quartiles(times[part], first[part]) for part in times},
                    "activity": notes[arm],
                }
            )
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The lines of the table, by heading."""
    base = {row["model"]: row["mb"] for row in rows if row["method"] == "baseline"}
    return [
        {
            "model": row["model"],
            "method": row["method"],
            "prompt ms": f"{row['ms']['prompt']:.1f}",
            "prompt x baseline": spread(row["ratio"]["prompt"]),
            "ms a token": f"{row['ms']['token']:.2f}",
            "token x baseline": spread(row["ratio"]["token"]),
            "MB": f"{row['mb']:.1f}",
            "MB x baseline": f"{row['mb'] / base[row['model']]:.2f}",
        }
        for row in rows
    ]


class _Stamps(LogitsProcessor):
    """Notes when the scores of each new token are there."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: list[float] = []
        self._wait = wait

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._wait()
        self.seconds.append(time.perf_counter())
        return scores


def _run(
    model: PreTrainedModel, inputs: dict[str, Tensor], methods: Any, new_tokens: int
) -> tuple[float, list[float], str]:
    """When it began, when each token was there, and what the methods did."""
    stamps = _Stamps(torch.cuda.synchronize if model.device.type == "cuda" else lambda: None)
    with intervene(model, methods) as session:
        begin = time.perf_counter()
        session.generate(
            **inputs,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([stamps]),
        )
        return begin, stamps.seconds, "; ".join(map(str, session.activity))


def _loaded(name: str, settings: BenchmarkSettings) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    lvlm = LVLM.load(name, device=settings.device, dtype=settings.dtype)
    return lvlm.model, lvlm.prepare([LVLM.example_image()] * settings.batch, ["describe the image ."] * settings.batch)


def _random(settings: BenchmarkSettings) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A LLaVA of 330 million random weights with four attention sinks, and a prompt with 576 image tokens."""
    config: Any = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            hidden_size=1024, intermediate_size=2816, num_hidden_layers=20, num_attention_heads=16, vocab_size=32000
        ),
        image_token_index=31999,
        image_seq_length=_IMAGE,
    )
    config.regard = {"sink_dimensions": [_DIMENSION], "sink_threshold": 20.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval().to(settings.device, getattr(torch, settings.dtype))
        ids = torch.tensor([[1, *[31999] * _IMAGE, *range(100, 140)]] * settings.batch)
        pixels = torch.randn(settings.batch, 3, 336, 336)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0

    def plant(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if output.shape[1] > max(_SINKS):
            output = output.clone()
            output[:, _SINKS, _DIMENSION] = 1e4
        return output

    model.model.language_model.layers[0].register_forward_hook(plant)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels.to(model.dtype)}
    return model, {key: value.to(settings.device) for key, value in inputs.items()}
