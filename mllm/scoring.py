"""The probability of given answers, exactly as if they were generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .prompt_batches import Asked, AtWork
from .prompts import answer_tokens

__all__ = ["Scored", "score_answers"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Given answers, read by a model.

    Attributes:
        scores: log probability of each answer to each question, in float32 on the CPU.
        lengths: its tokens.
        likeliest: whether each of its tokens is the likeliest there, so that the model would begin with it.
        active: names of the methods that did something.
    """

    scores: Float[Tensor, "samples answers"]
    lengths: Int[Tensor, "samples answers"]
    likeliest: Bool[Tensor, "samples answers"]
    active: frozenset[str]


def score_answers(
    asked: Asked,
    answers: Sequence[str],
    at_work: AtWork,
    extended: Callable[[dict[str, Tensor], list[list[int]]], dict[str, Tensor]],
    *,
    batch_size: int,
) -> Scored:
    """Log probability of each answer to each question.

    The answers are read after the prompts in sessions that know where the prompts end. Answers of one token share one
    reading of the prompt, and so does every answer that is the beginning of another.

    Args:
        asked: the questions and images.
        answers: the same for all questions.
        at_work: the methods.
        extended: puts tokens after the prompts, as `followed_by` does.
        batch_size: prompts that are read together.
    """
    scores = torch.zeros(len(asked.questions), len(answers))
    likeliest = torch.zeros(scores.shape, dtype=torch.bool)
    tokens = [[answer_tokens(asked.processor, text, answer) for answer in answers] for text in asked.texts]
    # What must be read: the prompt with all but the last token of each answer, unless another one covers it.
    reads = [(row, read) for row, some in enumerate(tokens) for read in _longest([one[:-1] for one in some])]
    for first in range(0, len(reads), batch_size):
        part = reads[first : first + batch_size]
        batch = asked.part([row for row, _ in part])
        prompts = batch.inputs()
        length = prompts["input_ids"].shape[1]
        inputs = extended(prompts, [read for _, read in part])
        with at_work.on(batch) as session:
            logits = session.forward(prompt=length, **inputs)["logits"]
        foretold = logits[:, length - 1 - inputs["input_ids"].shape[1] :].float().log_softmax(dim=-1).cpu()
        for (row, read), table in zip(part, foretold, strict=True):
            for index, one in enumerate(tokens[row]):
                if one[:-1] == read[: len(one) - 1]:
                    scores[row, index] = table[torch.arange(len(one)), torch.tensor(one)].sum()
                    likeliest[row, index] = table[: len(one)].argmax(dim=-1).tolist() == one
    lengths = torch.tensor([[len(one) for one in some] for some in tokens])
    return Scored(scores=scores, lengths=lengths, likeliest=likeliest, active=frozenset(at_work.fired))


def _longest(reads: list[list[int]]) -> list[list[int]]:
    """Those that are not the beginning of another."""
    unique = [list(read) for read in dict.fromkeys(map(tuple, reads))]
    return [one for one in unique if not any(one == other[: len(one)] for other in unique if other != one)]
