"""What a model answered, token by token."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from .session.activity import Activity

__all__ = ["Answer", "of_sample", "token_texts"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        text: what was said, without special tokens.
        tokens: the text in pieces, as the tokens say it; joined they are the text, up to blanks around it.
        complete: whether the model ended the answer itself, before the limit of new tokens.
        activity: what each method did for this sample, in the order of the methods.
        attention: for each image of the prompt, how much the row that foretold each token attended to each place of
            it, after all edits: mean over layers and heads, (tokens, rows, columns). `None` if nothing was watched.
    """

    text: str
    tokens: tuple[str, ...]
    complete: bool
    activity: tuple[Activity, ...] = ()
    attention: tuple[Float[Tensor, "tokens rows columns"], ...] | None = None


def token_texts(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """What each token adds to the text.

    Args:
        tokenizer: of the model.
        ids: tokens of an answer. One that ends within a letter adds nothing, and the next one the whole letter.
    """
    pieces, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        if end < len(ids) and text.endswith("\N{REPLACEMENT CHARACTER}"):
            pieces.append("")
            continue
        pairs = enumerate(zip(before, text, strict=False))
        same = next((place for place, (old, new) in pairs if old != new), min(len(before), len(text)))
        pieces.append(text[same:])
        before = text
    return tuple(pieces)


def of_sample(activity: Activity, index: int) -> Activity:
    """The account of one sample of a batch."""
    tables = {field.name: getattr(activity, field.name) for field in fields(activity) if field.name != "method"}
    return replace(activity, **{name: table[index : index + 1] for name, table in tables.items()})
