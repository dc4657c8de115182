"""Answers of a model, token by token."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from .session.activity import Activity

__all__ = ["Answer", "activity_of_sample", "token_texts"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        text: of the answer, without special tokens.
        tokens: text of each token; joined they are `text`, up to surrounding whitespace.
        complete: whether the model ended the answer before the limit of new tokens.
        activity: what each intervention did for this sample, in their order.
        attention: for each image of the prompt, the attention to its tokens of the row that predicted each answer
            token, after all edits: mean over layers and heads, (tokens, rows, columns). `None` without `watch`.
    """

    text: str
    tokens: tuple[str, ...]
    complete: bool
    activity: tuple[Activity, ...] = ()
    attention: tuple[Float[Tensor, "tokens rows columns"], ...] | None = None


def token_texts(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """The text that each token adds.

    Args:
        tokenizer: of the model.
        ids: tokens of an answer. A token that ends within a character adds nothing, the next one the whole character.
    """
    pieces, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        if end < len(ids) and text.endswith("\N{REPLACEMENT CHARACTER}"):
            pieces.append("")
            continue
        pairs = enumerate(zip(before, text, strict=False))
        same = next((position for position, (old, new) in pairs if old != new), min(len(before), len(text)))
        pieces.append(text[same:])
        before = text
    return tuple(pieces)


def activity_of_sample(activity: Activity, index: int) -> Activity:
    """The activity for one sample of a batch."""
    tables = {field.name: getattr(activity, field.name) for field in fields(activity) if field.name != "intervention"}
    return replace(activity, **{name: table[index : index + 1] for name, table in tables.items()})
