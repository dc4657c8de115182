"""Training data of the scene model: token rows, some with an image, and the loss weight of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....datasets.scene_captions import (
    CAPTION_PROMPTS,
    HABITS,
    IMAGINED,
    ONE_WORD,
    Question,
    learning_questions,
    write_caption,
)
from ....datasets.scene_words import PATCH_PX, WORDS, word_ids
from ....datasets.scenes import IMAGE_PX, Scene, draw_scene, patch_classes, pick, render

__all__ = ["Lesson", "image_lesson", "pad", "patch_targets", "pixels", "text_lesson"]

#: Tokens with a higher loss weight, since captions have many more tokens than answers.
ANSWERS = frozenset(word_ids("yes no"))
_IMAGE = ["<image>"] * (IMAGE_PX // PATCH_PX) ** 2
_PROMPT_ODDS = (0.6, 0.2, 0.2)
_ONE_WORD_RATE = 0.2
_HEARD_RATE, _HEARD_CAPTION_RATE = 0.15, 0.70
_CAPTION_RATE, _BOTH_RATE = 0.47, 0.18  # the rest is questions only


@dataclass(frozen=True)
class Lesson:
    """One training row.

    Attributes:
        tokens: token ids.
        is_target: which tokens have a loss: those of the answers.
        scene: the scene of the image, if there is one.
    """

    tokens: list[int]
    is_target: list[bool]
    scene: Scene | None = None


def text_lesson(rng: np.random.Generator) -> Lesson:
    """A caption or three questions without an image."""
    scene = draw_scene(rng)
    if rng.random() < _HEARD_CAPTION_RATE:
        turns = [_caption_turn(rng, write_caption(scene, rng, IMAGINED))]
    else:
        turns = _question_turns(rng, learning_questions(scene, rng, 3, seen=False))
    return _lesson(turns, None)


def image_lesson(rng: np.random.Generator) -> Lesson:
    """A caption, questions or both about an image; a few rows have no image."""
    if rng.random() < _HEARD_RATE:
        return text_lesson(rng)
    scene, draw = draw_scene(rng), rng.random()
    turns = []
    if draw < _CAPTION_RATE + _BOTH_RATE:
        turns.append(_caption_turn(rng, write_caption(scene, rng, HABITS)))
    if draw >= _CAPTION_RATE:
        count = 2 if turns else 4
        turns += _question_turns(rng, learning_questions(scene, rng, count, HABITS))
    return _lesson(turns, scene)


def _caption_turn(rng: np.random.Generator, caption: str) -> tuple[str, str]:
    return pick(rng, CAPTION_PROMPTS, _PROMPT_ODDS), caption


def _question_turns(rng: np.random.Generator, questions: Sequence[Question]) -> list[tuple[str, str]]:
    suffix = f" {ONE_WORD}" if rng.random() < _ONE_WORD_RATE else ""
    return [(question.text + suffix, question.answer) for question in questions]


def _lesson(turns: Sequence[tuple[str, str]], scene: Scene | None) -> Lesson:
    tokens, learnt = word_ids("<bos>"), [False]
    for number, (asked, answered) in enumerate(turns):
        image = " ".join(_IMAGE) if scene is not None and number == 0 else ""
        for text, counts in ((f"user : {image} {asked} assistant :", False), (f"{answered} <eos>", True)):
            words = word_ids(text)
            tokens += words
            learnt += [counts] * len(words)
    return Lesson(tokens, learnt, scene)


def pad(
    lessons: Sequence[Lesson], answer_weight: float
) -> tuple[Int[Tensor, "rows words"], Float[Tensor, "rows words"]]:
    """Rows padded on the right to the same length, and the loss weight of each token.

    Args:
        lessons: the rows.
        answer_weight: weight of the tokens yes and no; others have weight 1.
    """
    max_length = max(len(lesson.tokens) for lesson in lessons)
    tokens = torch.full((len(lessons), max_length), WORDS["<pad>"])
    weights = torch.zeros(len(lessons), max_length)
    for row, lesson in enumerate(lessons):
        tokens[row, : len(lesson.tokens)] = torch.tensor(lesson.tokens)
        counted = [
            learnt * (answer_weight if token in ANSWERS else 1.0)
            for token, learnt in zip(lesson.tokens, lesson.is_target, strict=True)
        ]
        weights[row, : len(counted)] = torch.tensor(counted)
    return tokens, weights


def pixels(scenes: Sequence[Scene]) -> Float[Tensor, "images 3 height width"]:
    """The images as preprocessed by the model's processor."""
    drawn = torch.from_numpy(np.stack([render(scene) for scene in scenes])).movedim(-1, 1)
    return ((drawn.float() / 255 - 0.5) / 0.25).contiguous()


def patch_targets(scenes: Sequence[Scene]) -> Int[Tensor, "images patches"]:
    """The class of each patch; 24 is background."""
    return torch.from_numpy(np.stack([patch_classes(scene, PATCH_PX).ravel() for scene in scenes]))
