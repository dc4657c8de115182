"""Batches of prompts before tokenization, and interventions that are bound to one batch after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from .processor_inputs import prompt_texts, tokenised
from .session.contract import Intervention
from .session.session import Session, intervene

__all__ = ["BoundInterventions", "PromptBatch", "seeded"]


@dataclass(frozen=True)
class PromptBatch:
    """Questions and images before tokenization; `regard.mllm.session.contract.Prompts` of interventions with `bind`.

    Attributes:
        processor: of the model.
        questions: one per sample.
        images: of each sample.
        template: whether the processor's chat template is used.
        to_device: moves inputs to the model's device and dtype.
    """

    processor: Any
    questions: Sequence[str]
    images: Sequence[Sequence[Image.Image]]
    template: bool
    to_device: Callable[[dict[str, Tensor]], dict[str, Tensor]]

    @property
    def texts(self) -> list[str]:
        """The prompts as text, with placeholders for images."""
        return prompt_texts(self.processor, self.questions, list(map(len, self.images)), template=self.template)

    def part(self, rows: Sequence[int]) -> PromptBatch:
        """A selection of the samples."""
        questions, images = [self.questions[row] for row in rows], [self.images[row] for row in rows]
        return PromptBatch(self.processor, questions, images, self.template, self.to_device)

    def inputs(self) -> dict[str, Tensor]:
        """The model's inputs."""
        return self.inputs_with(self.images)

    def inputs_with(self, images: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        """The model's inputs for the same questions about other images."""
        return self.to_device(tokenised(self.processor, self.texts, images))

    def first_tokens(self, word: str) -> list[int]:
        """First tokens of the usual spellings of a word: with and without a space, in lower and upper case.

        Raises:
            ValueError: the tokenizer has no token for any of them.
        """
        tokenizer, found = self.processor.tokenizer, {}
        for spelling in (word, word.lower(), word.capitalize(), word.upper()):
            for text in (spelling, f" {spelling}"):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                # Some tokenizers have a separate token for the space.
                ids = [token for token in ids if tokenizer.decode([token]).strip()][:1]
                found.update(dict.fromkeys(token for token in ids if token not in tokenizer.all_special_ids))
        if not found:
            raise ValueError(f"the tokenizer has no token for {word!r}")
        return list(found)


class BoundInterventions:
    """Interventions that are bound to one batch of prompts after another.

    Args:
        model: the model.
        interventions: one or several.
        watch: as in `intervene`.

    Attributes:
        active: names of those that have changed something.
    """

    def __init__(
        self, model: PreTrainedModel, interventions: Intervention | Sequence[Intervention], *, watch: bool = False
    ) -> None:
        self.model, self.watch = model, watch
        self.interventions = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
        self.active: set[str] = set()

    @contextmanager
    def session(self, batch: PromptBatch) -> Iterator[Session]:
        """A session for one batch."""
        bound = [one.bind(batch) if hasattr(one, "bind") else one for one in self.interventions]
        with intervene(self.model, bound, allow_inactive=True, watch=self.watch) as session:
            yield session
        self.active |= session.active

    def check_active(self) -> None:
        """Check that every intervention has changed something.

        Raises:
            RuntimeError: one has not.
        """
        inactive = [one.name for one in self.interventions if one.name not in self.active]
        if inactive:
            raise RuntimeError(
                f"{', '.join(inactive)} changed nothing for any of these prompts, so the answers are the baseline's. "
                "Check the layers and thresholds, and that the prompts have images; allow_inactive=True accepts this"
            )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch for the duration of the block; afterwards its generators have their previous state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
