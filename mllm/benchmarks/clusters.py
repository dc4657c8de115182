"""Which questions depend on each other."""

from __future__ import annotations

from collections.abc import Iterable

from .contract import Sample

__all__ = ["clusters"]


def clusters(samples: Iterable[Sample]) -> list[int]:
    """For each question the number of its cluster: questions that share an image or a group are in one.

    Answers of one cluster depend on each other; whoever resamples draws whole clusters.

    Example:
        >>> clusters([Sample(id=str(i), image=image, question="?") for i, image in enumerate("aba")])
        [0, 1, 0]
    """
    leader: list[int] = []

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    seen: dict[tuple[str, ...], int] = {}
    for place, sample in enumerate(samples):
        leader.append(place)
        keys: list[tuple[str, ...]] = [("group", kind, name) for kind, name in sample.groups.items()]
        if sample.image:
            keys.append(("image", sample.image))
        for key in keys:
            first, second = sorted((find(seen.setdefault(key, place)), find(place)))
            leader[second] = first
    numbers: dict[int, int] = {}
    return [numbers.setdefault(find(place), len(numbers)) for place in range(len(leader))]
