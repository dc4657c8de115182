"""Clusters of samples that share an image or a group."""

from __future__ import annotations

from collections.abc import Iterable

from .contract import Sample

__all__ = ["clusters"]


def clusters(samples: Iterable[Sample]) -> list[int]:
    """Cluster index of each sample; samples that share an image or a group are in the same cluster.

    Answers of one cluster are correlated, so whole clusters are resampled.

    Example:
        >>> clusters([Sample(id=str(i), image=image, question="?") for i, image in enumerate("aba")])
        [0, 1, 0]
    """
    leader: list[int] = []

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    seen: dict[tuple[str, ...], int] = {}
    for index, sample in enumerate(samples):
        leader.append(index)
        keys: list[tuple[str, ...]] = [("group", kind, name) for kind, name in sample.groups.items()]
        if sample.image:
            keys.append(("image", sample.image))
        for key in keys:
            first, second = sorted((find(seen.setdefault(key, index)), find(index)))
            leader[second] = first
    numbers: dict[int, int] = {}
    return [numbers.setdefault(find(index), len(numbers)) for index in range(len(leader))]
