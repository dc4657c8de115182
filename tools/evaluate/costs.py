"""What interventions cost a vision-language model: at the prompt, at every new token, and in memory.

All arms take turns, and every new token is timed separately, so that medians and ratios hold whatever else the machine
does; a ratio is formed between passes over the same prompt. The first prompt only warms up. Memory is what reading the
prompt and four new tokens hold at their peak beyond the weights.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from ...mllm import intervene
from ...mllm.prompt_batches import BoundInterventions, PromptBatch
from ..benchmark.profiler import peak_bytes, quartiles

__all__ = ["Cost", "Prompt", "cost_table", "measure_costs"]

#: A model's inputs, and what they were made from, which some interventions need.
Prompt = tuple[dict[str, Tensor], PromptBatch | None]


@dataclass
class Cost:
    """What one arm took.

    Attributes:
        seconds: "prompt", "token" (the median of a pass) and "answer" (all of it) -> seconds of every pass.
        mb: most megabytes held at a time, beyond the weights.
        activity: what the interventions did in the last pass.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"prompt": [], "token": [], "answer": []})
    mb: float = 0.0
    activity: str = ""


def measure_costs(
    model: PreTrainedModel, prompts: Sequence[Prompt], arms: Mapping[str, Any], new_tokens: int
) -> dict[str, Cost]:
    """Let all arms answer all prompts, in turns.

    Args:
        model: the model.
        prompts: two at least; the first one warms up.
        arms: name -> interventions, the baseline first.
        new_tokens: how many tokens every answer has, at least 2.
    """
    costs = {arm: Cost() for arm in arms}
    order = list(arms)
    for turn, prompt in enumerate(prompts):
        for arm in order:
            begin, stamps, costs[arm].activity = _timed(model, prompt, arms[arm], new_tokens)
            if turn:
                seconds = costs[arm].seconds
                seconds["prompt"].append(stamps[0] - begin)
                seconds["token"].append(statistics.median(after - b for b, after in itertools.pairwise(stamps)))
                seconds["answer"].append(stamps[-1] - begin)
        order = order[1:] + order[:1]
    for arm, interventions in arms.items():
        once = partial(_timed, model, prompts[-1], interventions, min(4, new_tokens))
        costs[arm].mb = peak_bytes(once, str(model.device)) / 1e6
    return costs


def cost_table(costs: Mapping[str, Cost], new_tokens: int, device: str) -> dict[str, Any]:
    """Medians, and ratios to the first arm with their quartiles, in JSON's types."""
    first = next(iter(costs.values()))
    return {
        "device": device,
        "samples": len(first.seconds["prompt"]),
        "new_tokens": new_tokens,
        "arms": {
            arm: {
                "prompt_ms": 1e3 * statistics.median(cost.seconds["prompt"]),
                "token_ms": 1e3 * statistics.median(cost.seconds["token"]),
                "tokens_per_second": new_tokens / statistics.median(cost.seconds["answer"]),
                "mb": cost.mb,
                "ratio": {
                    "prompt": quartiles(cost.seconds["prompt"], first.seconds["prompt"]),
                    "token": quartiles(cost.seconds["token"], first.seconds["token"]),
                    "tokens_per_second": quartiles(first.seconds["answer"], cost.seconds["answer"]),
                    "mb": cost.mb / first.mb if first.mb else None,
                },
            }
            for arm, cost in costs.items()
        },
    }


class _Stamps(LogitsProcessor):
    """Notes when the scores of each new token are there."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: list[float] = []
        self._wait = wait

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._wait()
        self.seconds.append(time.perf_counter())
        return scores


def _timed(
    model: PreTrainedModel, prompt: Prompt, interventions: Any, new_tokens: int
) -> tuple[float, list[float], str]:
    """When it began, when each token was there, and what the interventions did."""
    stamps = _Stamps(torch.cuda.synchronize if model.device.type == "cuda" else lambda: None)
    inputs, asked = prompt
    work = (
        intervene(model, interventions, allow_inactive=True)
        if asked is None
        else BoundInterventions(model, interventions).session(asked)
    )
    with work as session:
        begin = time.perf_counter()
        session.generate(
            **inputs,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([stamps]),
        )
        return begin, stamps.seconds, "; ".join(map(str, session.activity))
