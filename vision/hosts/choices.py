"""The kind of a block, and the stages that get it."""

from __future__ import annotations

from collections.abc import Sequence

from ..attention import attention_class

__all__ = ["chosen_stages", "is_mixer"]


def is_mixer(attention: str) -> bool:
    """Whether the block is a mixer, which replaces the host's token mixing; a gate follows it."""
    return attention_class(attention).kind == "mixer"


def chosen_stages(stages: Sequence[int] | None, known: range) -> set[int]:
    """The 0-based stages that get the block; all by default.

    Raises:
        ValueError: the host has no such stage, or the choice is empty.
    """
    chosen = set(known if stages is None else stages)
    if not chosen or not chosen <= set(known):
        numbers = ", ".join(map(str, known))
        raise ValueError(f"attention_stages is {stages!r}; this host accepts one or more of {numbers}")
    return chosen
