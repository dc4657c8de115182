"""Groups of questions that are right only when all of their answers are, as numbers that can be summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .contract import Counted, Sample

__all__ = ["clusters", "with_groups"]


def with_groups(samples: Sequence[Sample], counted: Sequence[Counted]) -> list[Counted]:
    """Add what groups contribute to the numbers of their first answers.

    For every kind of group there are two more numbers: `KIND_groups`, and `KIND_groups_right`, those of which all
    answers are right. Benchmarks without groups come back as they are.

    Args:
        samples: the questions.
        counted: their answers under one parser, in the same order.

    Raises:
        ValueError: not one answer a question, or answers that are neither right nor wrong.

    Example:
        >>> samples = [Sample(id=i, image="1.jpg", question="?", groups={"image": "1"}) for i in "ab"]
        >>> counted = [Counted(numbers={}, correct=True), Counted(numbers={}, correct=False)]
        >>> with_groups(samples, counted)[0].numbers
        {'image_groups': 1.0, 'image_groups_right': 0.0}
    """
    if len(samples) != len(counted):
        raise ValueError(f"got {len(counted)} counted answers for {len(samples)} questions; give one each")
    members: dict[tuple[str, str], list[int]] = {}
    for place, sample in enumerate(samples):
        for kind, group in sample.groups.items():
            members.setdefault((kind, group), []).append(place)
    kinds = dict.fromkeys(kind for kind, _ in members)
    empty = {f"{kind}_groups{end}": 0.0 for kind in kinds for end in ("", "_right")}
    numbers = [{**one.numbers, **empty} for one in counted]
    for (kind, group), places in members.items():
        right = [counted[place].correct for place in places]
        if None in right:
            raise ValueError(f"the group {group!r} has answers that are neither right nor wrong; it cannot be counted")
        numbers[places[0]][f"{kind}_groups"] = 1.0
        numbers[places[0]][f"{kind}_groups_right"] = float(all(right))
    return [replace(one, numbers=mine) for one, mine in zip(counted, numbers, strict=True)]


def clusters(samples: Sequence[Sample]) -> list[int]:
    """For each question the number of its cluster: questions that share an image or a group are in one.

    Answers of one cluster depend on each other; whoever resamples draws whole clusters.

    Example:
        >>> clusters([Sample(id=str(i), image=image, question="?") for i, image in enumerate("aba")])
        [0, 1, 0]
    """
    leader = list(range(len(samples)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    seen: dict[tuple[str, ...], int] = {}
    for place, sample in enumerate(samples):
        keys: list[tuple[str, ...]] = [("group", kind, name) for kind, name in sample.groups.items()]
        if sample.image:
            keys.append(("image", sample.image))
        for key in keys:
            first, second = sorted((find(seen.setdefault(key, place)), find(place)))
            leader[second] = first
    numbers: dict[int, int] = {}
    return [numbers.setdefault(find(place), len(numbers)) for place in range(len(samples))]
