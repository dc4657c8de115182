"""`regard benchmark lvlm`: what interventions cost at the prompt and at every new token.

The baseline is a session without interventions; see `regard.tools.evaluate.costs` for how it is measured.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from ...mllm import LVLM, parse_interventions
from ..evaluate.costs import Prompt, measure_costs
from ..run.devices import choose_device
from ..settings import BenchmarkLvlmSettings
from .profiler import quartiles, spread
from .report import report, torch_threads

__all__ = ["lines", "measure", "run"]

_IMAGE, _SINKS, _DIMENSION = 576, (0, 30, 180, 400), 5


def run(settings: BenchmarkLvlmSettings) -> int:
    """Measure, print and write; the exit code is 0.

    Args:
        settings: see `BenchmarkLvlmSettings`.

    Raises:
        ValueError: a model, intervention or device is unknown, or they do not fit each other.
    """
    choose_device(settings.device)
    with torch_threads(settings.threads):
        rows = measure(settings)
    conditions = f"{settings.device}, {settings.dtype}, batch {settings.batch}, {settings.new_tokens} new tokens"
    report(settings, rows, lines(rows), conditions)
    return 0


def measure(settings: BenchmarkLvlmSettings) -> list[dict[str, Any]]:
    """A row for every model and intervention, the baseline first.

    Raises:
        ValueError: a model or intervention is unknown, or cannot work there.
    """
    arms: dict[str, Any] = {"baseline": ()} | {fix: parse_interventions(fix) for fix in settings.fix}
    rows = []
    for name in settings.lvlms:
        model, prompt = _random(settings) if name == "random" else _loaded(name, settings)
        length = prompt[0]["input_ids"].shape[1]
        parameters = sum(weight.numel() for weight in model.parameters())
        sys.stderr.write(f"{name}: {parameters / 1e6:.1f} million weights, {length} tokens\n")
        costs = measure_costs(model, [prompt] * (settings.repeats + 1), arms, settings.new_tokens)
        first = costs["baseline"]
        rows += [
            {
                "model": name,
                "intervention": arm,
                "parameters": parameters,
                "prompt_tokens": length,
                "mb": cost.mb,
                "ms": {part: 1e3 * statistics.median(times) for part, times in cost.seconds.items()},
                "ratio": {part: quartiles(cost.seconds[part], first.seconds[part]) for part in cost.seconds},
                "activity": cost.activity,
            }
            for arm, cost in costs.items()
        ]
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The lines of the table, by heading."""
    base = {row["model"]: row["mb"] for row in rows if row["intervention"] == "baseline"}
    return [
        {
            "model": row["model"],
            "intervention": row["intervention"],
            "prompt ms": f"{row['ms']['prompt']:.1f}",
            "prompt x baseline": spread(row["ratio"]["prompt"]),
            "ms a token": f"{row['ms']['token']:.2f}",
            "token x baseline": spread(row["ratio"]["token"]),
            "MB": f"{row['mb']:.1f}",
            "MB x baseline": f"{row['mb'] / base[row['model']]:.2f}",
        }
        for row in rows
    ]


def _loaded(name: str, settings: BenchmarkLvlmSettings) -> tuple[PreTrainedModel, Prompt]:
    lvlm = LVLM.load(name, device=settings.device, dtype=settings.dtype)
    asked = lvlm.prompt_batch([LVLM.example_image()] * settings.batch, ["describe the image ."] * settings.batch)
    return lvlm.model, (asked.inputs(), asked)


def _random(settings: BenchmarkLvlmSettings) -> tuple[PreTrainedModel, Prompt]:
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
    return model, ({key: value.to(settings.device) for key, value in inputs.items()}, None)
