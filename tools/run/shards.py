"""Shards of a job: `--shard I/N`, for array jobs and several machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Shard", "parse_shard", "part_of"]

Item = TypeVar("Item")


class Shard(NamedTuple):
    """One of several equal parts of a job.

    Attributes:
        part: which one, from 0.
        parts: how many there are.
    """

    part: int
    parts: int


def parse_shard(text: str) -> Shard:
    """Read "I/N", with I from 1 to N.

    Raises:
        ValueError: the text has another form.

    Example:
        >>> parse_shard("2/8")
        Shard(part=1, parts=8)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--shard is {text!r}; give I/N with I from 1 to N, such as 2/8")
    return Shard(int(match[1]) - 1, int(match[2]))


def part_of(items: Sequence[Item], shard: Shard) -> list[Item]:
    """Every N-th item, from the shard's number on.

    Example:
        >>> part_of("abcde", parse_shard("1/2"))
        ['a', 'c', 'e']
    """
    return list(items[shard.part :: shard.parts])
