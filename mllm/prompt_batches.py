"""Prompts as they were asked, and methods at work on one batch of them after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from .prompts import prompt_texts, tokenised
from .session.edit import Intervention
from .session.session import Session, intervene

__all__ = ["Asked", "AtWork", "seeded"]


@dataclass(frozen=True)
class Asked:
    """What was asked, before it became the model's inputs; what methods with `bind` are given.

    Attributes:
        processor: of the model.
        questions: one for each sample.
        images: of each sample.
        template: whether the processor's chat template is used.
        place: puts inputs where the model is.
    """

    processor: Any
    questions: Sequence[str]
    images: Sequence[Sequence[Image.Image]]
    template: bool
    place: Callable[[dict[str, Tensor]], dict[str, Tensor]]

    @property
    def texts(self) -> list[str]:
        """The prompts in words, with placeholders for images."""
        return prompt_texts(self.processor, self.questions, list(map(len, self.images)), template=self.template)

    def part(self, rows: Sequence[int]) -> Asked:
        """Some of the samples."""
        questions, images = [self.questions[row] for row in rows], [self.images[row] for row in rows]
        return Asked(self.processor, questions, images, self.template, self.place)

    def inputs(self) -> dict[str, Tensor]:
        """The model's inputs."""
        return self.inputs_with(self.images)

    def inputs_with(self, images: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        """The model's inputs for the same questions about other images."""
        return self.place(tokenised(self.processor, self.texts, images))

    def first_tokens(self, word: str) -> list[int]:
        """Tokens with which the usual spellings of a word begin: with and without a blank, in small and large letters.

        Raises:
            ValueError: the tokenizer has no token for any of them.
        """
        tokenizer, found = self.processor.tokenizer, {}
        for spelling in (word, word.lower(), word.capitalize(), word.upper()):
            for text in (spelling, f" {spelling}"):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                # Some tokenizers have a token for the blank alone.
                ids = [token for token in ids if tokenizer.decode([token]).strip()][:1]
                found.update(dict.fromkeys(token for token in ids if token not in tokenizer.all_special_ids))
        if not found:
            raise ValueError(f"the tokenizer has no token for {word!r}")
        return list(found)


class AtWork:
    """Methods that are bound to one batch of prompts after the other, and an account of those that did something.

    Args:
        model: the model.
        methods: one or several.
        watch: as in `intervene`.
    """

    def __init__(
        self, model: PreTrainedModel, methods: Intervention | Sequence[Intervention], *, watch: bool = False
    ) -> None:
        self.model, self.watch = model, watch
        self.methods = (methods,) if isinstance(methods, Intervention) else tuple(methods)
        self.fired: set[str] = set()

    @contextmanager
    def on(self, asked: Asked) -> Iterator[Session]:
        """A session for some prompts."""
        bound = [method.bind(asked) if hasattr(method, "bind") else method for method in self.methods]
        with intervene(self.model, bound, allow_inactive=True, watch=self.watch) as session:
            yield session
        self.fired |= session.fired

    def check(self) -> None:
        """Complain of methods that did nothing.

        Raises:
            RuntimeError: there are some.
        """
        idle = [method.name for method in self.methods if method.name not in self.fired]
        if idle:
            raise RuntimeError(
                f"{', '.join(idle)} did nothing for any of these prompts, so the answers are the baseline's. Look at "
                "the method's layers and thresholds, and whether the prompts have images; allow_inactive=True accepts "
                "it"
            )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's draws for as long as the block lasts; afterwards its generators go on where they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
