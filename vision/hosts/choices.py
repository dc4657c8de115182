"""What every host asks about a choice of attention."""

from __future__ import annotations

from collections.abc import Sequence

from ..attention import attention_class

__all__ = ["chosen_stages", "is_mixer"]


def is_mixer(attention: str) -> bool:
    """Whether the block takes the place of what mixed the tokens; a gate comes after it."""
    return attention_class(attention).kind == "mixer"


def chosen_stages(stages: Sequence[int] | None, known: range) -> set[int]:
    """The 0-based stages that get the block; without a choice, all of them.

    Raises:
        ValueError: the host has no such stage, or none was named.
    """
    chosen = set(known if stages is None else stages)
    if not chosen or not chosen <= set(known):
        numbers = ", ".join(map(str, known))
        raise ValueError(f"attention_stages is {stages!r}; this host takes one or more of {numbers}")
    return chosen
