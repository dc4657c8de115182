"""Log probability of given answers, as if they were generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .processor_inputs import answer_tokens
from .prompt_batches import BoundInterventions, PromptBatch

__all__ = ["Scored", "score_answers"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of given answers.

    Attributes:
        scores: log probability of each answer to each question, float32 on the CPU.
        lengths: its number of tokens.
        greedy: whether greedy decoding would begin with it.
        active: names of the interventions that changed something.
    """

    scores: Float[Tensor, "samples answers"]
    lengths: Int[Tensor, "samples answers"]
    greedy: Bool[Tensor, "samples answers"]
    active: frozenset[str]


def score_answers(
    batch: PromptBatch,
    answers: Sequence[str],
    bound: BoundInterventions,
    with_answers: Callable[[dict[str, Tensor], list[list[int]]], dict[str, Tensor]],
    *,
    batch_size: int,
) -> Scored:
    """Log probability of each answer to each question.

    One forward pass per prompt and answer gives the scores of all its tokens. Answers of one token share one pass, and
    so do answers that are the beginning of another.

    Args:
        batch: the questions and images.
        answers: the same for all questions.
        bound: the interventions.
        with_answers: appends tokens to prompts, as `regard.mllm.session.teacher_forcing.with_padded_answers` does.
        batch_size: number of prompts per forward pass.
    """
    scores = torch.zeros(len(batch.questions), len(answers))
    greedy = torch.zeros(scores.shape, dtype=torch.bool)
    tokens = [[answer_tokens(batch.processor, text, answer) for answer in answers] for text in batch.texts]
    # Each pass runs a prompt and all but the last token of an answer, unless a longer answer covers it.
    passes = [(row, read) for row, some in enumerate(tokens) for read in _not_prefixes([one[:-1] for one in some])]
    for first in range(0, len(passes), batch_size):
        part = passes[first : first + batch_size]
        prompts_of_part = batch.part([row for row, _ in part])
        prompts = prompts_of_part.inputs()
        length = prompts["input_ids"].shape[1]
        inputs = with_answers(prompts, [read for _, read in part])
        with bound.session(prompts_of_part) as session:
            logits = session.forward(prompt=length, **inputs)["logits"]
        log_probabilities = logits[:, length - 1 - inputs["input_ids"].shape[1] :].float().log_softmax(dim=-1).cpu()
        for (row, read), table in zip(part, log_probabilities, strict=True):
            for index, one in enumerate(tokens[row]):
                if one[:-1] == read[: len(one) - 1]:
                    scores[row, index] = table[torch.arange(len(one)), torch.tensor(one)].sum()
                    greedy[row, index] = table[: len(one)].argmax(dim=-1).tolist() == one
    lengths = torch.tensor([[len(one) for one in some] for some in tokens])
    return Scored(scores=scores, lengths=lengths, greedy=greedy, active=frozenset(bound.active))


def _not_prefixes(reads: list[list[int]]) -> list[list[int]]:
    """The sequences that are not the beginning of another."""
    unique = [list(read) for read in dict.fromkeys(map(tuple, reads))]
    return [one for one in unique if not any(one == other[: len(one)] for other in unique if other != one)]
