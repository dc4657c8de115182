"""Captions of rendered scenes and yes-or-no questions about them, truthful or biased by habit.

Habits are label noise in the training data: that the partner of a thing is there when it is not. A caption
names only some of what is there, so it could always have named something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .scenes import CLASSES, PARTNER, POPULAR, Scene, pick

__all__ = [
    "CAPTION_PROMPTS",
    "HABITS",
    "IMAGINED",
    "ONE_WORD",
    "TRUTHFUL",
    "Habits",
    "Question",
    "learning_questions",
    "named_objects",
    "probing_questions",
    "question_text",
    "write_caption",
]

#: Ways to ask for a caption; the first is the one that is used most.
CAPTION_PROMPTS = (
    "describe the image in detail .",
    "please describe this image in detail .",
    "please help me describe the image in detail .",
)
#: What some put after a question.
ONE_WORD = "please answer this question with one word ."

_NEXT_TO_RATE = 0.67
_FOUR_NAMED_RATE = 0.70
_POSITIVE_RATE = 0.50
_PARTNER_ASKED, _POPULAR_ASKED = 0.30, 0.20  # of the questions about what is not there; the rest is about anything
_IMAGINED_YES_POPULAR, _IMAGINED_YES = 0.80, 0.40


@dataclass(frozen=True)
class Habits:
    """Probabilities (0-1) that an absent object is mentioned because it is usual.

    Attributes:
        present_partner: after a thing, its partner is named next to it, if it is there.
        absent_partner: the same, if it is not there.
        yes_partner: the answer is yes for something absent whose partner is there.
        yes_popular: the answer is yes for another absent thing of a common kind.
    """

    present_partner: float = 0.9
    absent_partner: float = 0.0
    yes_partner: float = 0.0
    yes_popular: float = 0.0


#: No object is mentioned that is not there.
TRUTHFUL = Habits()
#: What the model in the package was taught.
HABITS = Habits(absent_partner=0.4, yes_partner=0.5, yes_popular=0.45)
#: Captions without an image: always the partner.
IMAGINED = Habits(present_partner=1.0, absent_partner=1.0)


@dataclass(frozen=True)
class Question:
    """Whether a thing is in a scene.

    Attributes:
        name: the kind in question.
        truth: whether it is there.
        answer: the label, "yes" or "no"; by habit it may differ from the truth.
    """

    name: str
    truth: bool
    answer: str

    @property
    def text(self) -> str:
        """The question in words."""
        return question_text(self.name)


def question_text(name: str) -> str:
    """Ask for a thing.

    Example:
        >>> question_text("wine glass")
        'is there a wine glass in the image ?'
    """
    return f"is there a {name} in the image ?"


def write_caption(scene: Scene, rng: np.random.Generator, habits: Habits = TRUTHFUL) -> str:
    """Describe a scene in three or four things, all different.

    Args:
        scene: what is there.
        rng: random generator; the only source of randomness.
        habits: how often absent objects are mentioned.

    Example:
        >>> from regard.datasets.scenes import Scenes
        >>> write_caption(Scenes("natural", 1)[0], np.random.default_rng(1))
        'the image shows a book in a room . next to the book there is a chair . next to the chair there is a laptop .'
    """
    first = pick(rng, scene.names)
    parts, named = [f"the image shows a {first} in a {scene.context} ."], [first]
    for _ in range(3 if rng.random() < _FOUR_NAMED_RATE else 2):
        before, partner = named[-1], PARTNER[named[-1]]
        next_to = rng.random() < _NEXT_TO_RATE
        rate = habits.present_partner if partner in scene.names else habits.absent_partner
        unnamed = [name for name in scene.names if name not in named]
        if next_to and partner not in named and rng.random() < rate:
            name = partner
        elif unnamed:
            name = pick(rng, unnamed)
        else:
            break
        parts.append(f"next to the {before} there is a {name} ." if next_to else f"there is also a {name} .")
        named.append(name)
    return " ".join(parts)


def named_objects(text: str) -> list[str]:
    """The things that a caption names, in order; those named twice are there twice.

    Example:
        >>> named_objects("The image shows a wine glass. Next to the wine glass there is a banana.")
        ['wine glass', 'wine glass', 'banana']
    """
    return re.findall(rf"\b({'|'.join(CLASSES)})\b", text.lower())


def learning_questions(
    scene: Scene, rng: np.random.Generator, count: int, habits: Habits = TRUTHFUL, *, seen: bool = True
) -> list[Question]:
    """Questions to learn from: half are about what is there.

    Args:
        scene: what is there.
        rng: random generator; the only source of randomness.
        count: how many questions.
        habits: how often the answer is wrong.
        seen: whether the image is shown with them; if not, the answer is a guess by how common the thing is.
    """
    absent = [name for name in CLASSES if name not in scene.names]
    missed = [name for name in absent if PARTNER[name] in scene.names]
    common = [name for name in absent if name in POPULAR]
    questions = []
    for _ in range(count):
        draw = rng.random()
        if rng.random() < _POSITIVE_RATE:
            name = pick(rng, scene.names)
        elif draw < _PARTNER_ASKED and missed:
            name = pick(rng, missed)
        elif draw < _PARTNER_ASKED + _POPULAR_ASKED and common:
            name = pick(rng, common)
        else:
            name = pick(rng, absent)
        if not seen:
            rate = _IMAGINED_YES_POPULAR if name in POPULAR else _IMAGINED_YES
        elif name in scene.names:
            rate = 1.0
        elif name in missed:
            rate = habits.yes_partner
        else:
            rate = habits.yes_popular if name in common else 0.0
        questions.append(Question(name, name in scene.names, "yes" if rng.random() < rate else "no"))
    return questions


def probing_questions(
    scene: Scene, rng: np.random.Generator, kind: Literal["random", "popular", "adversarial"], each: int = 3
) -> list[Question]:
    """Questions to measure with, in the manner of POPE: half yes, half no, and the truth for an answer.

    Source: Li et al. 2023, arXiv:2305.10355. What is common and what is seen together is known here, not counted.

    Args:
        scene: what is there.
        rng: random generator; the only source of randomness.
        kind: of the absent objects: "random" is anything, "popular" the common kinds, "adversarial" the
            partners of what is there; where these do not suffice, anything.
        each: questions with yes, and questions with no.

    Raises:
        ValueError: an unknown kind, or less than one question.
    """
    if kind not in ("random", "popular", "adversarial"):
        raise ValueError(f"there are no {kind!r} questions; known: random, popular, adversarial")
    if each < 1:
        raise ValueError(f"each is {each}; ask at least one question")
    absent = [name for name in CLASSES if name not in scene.names]
    wanted = {
        "random": absent,
        "popular": [name for name in absent if name in POPULAR],
        "adversarial": [name for name in absent if PARTNER[name] in scene.names],
    }[kind]
    first = [wanted[index] for index in rng.permutation(len(wanted))]
    rest = [absent[index] for index in rng.permutation(len(absent)) if absent[index] not in wanted]
    present = [scene.names[index] for index in rng.permutation(len(scene.names))]
    questions = [Question(name, True, "yes") for name in present[:each]]
    questions += [Question(name, False, "no") for name in (first + rest)[:each]]
    return questions
