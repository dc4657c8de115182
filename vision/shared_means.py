"""Shared means of channel attention, so that every tile is restored by the same function.

HAT's channel attention uses the means of a whole map. In tiled inference each tile would have its own means, and the
brightness and sharpness of neighbours would differ, however far they overlap. Here the means of some tiles are recorded
first, and their average is used for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["average_means", "hold_means"]

#: Means of every pooling module and of every call of a network that is called several times for a tile.
Means = list[list[Tensor]]


def average_means(model: nn.Module, runs: Iterable[tuple[float, Callable[[], Any]]]) -> Means:
    """Run a network on tiles and average the outputs of its global poolings.

    Args:
        model: any network; its poolings are `nn.AdaptiveAvgPool2d`.
        runs: weight of a tile, and what calls the network on it, for every tile equally often.

    Example:
        >>> import torch
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1))
        >>> tiles = [(weight, lambda weight=weight: pool(torch.full((1, 1, 2, 2), weight))) for weight in (1.0, 3.0)]
        >>> average_means(pool, tiles)
        [[tensor([[[[2.5000]]]])]]
    """
    total, sums = 0.0, None
    for weight, run in runs:
        seen: Means = [[] for _ in _poolings(model)]
        handles = [
            pool.register_forward_hook(lambda module, given, found, turns=turns: turns.append(found))
            for pool, turns in zip(_poolings(model), seen, strict=True)
        ]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        scaled = [[weight * mean for mean in turns] for turns in seen]
        sums = scaled if sums is None else [_added(*pair) for pair in zip(sums, scaled, strict=True)]
        total += weight
    return [[mean / total for mean in turns] for turns in sums or []]


@contextmanager
def hold_means(model: nn.Module, means: Means) -> Iterator[None]:
    """A context in which the global poolings of a network return these means, whatever their input.

    Args:
        model: as in `average_means`.
        means: as returned there; without any the network is unchanged.
    """
    handles = []
    for pool, turns in zip(_poolings(model), means, strict=False):
        turn = _Turn(turns)
        handles.append(pool.register_forward_hook(turn))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Turn:
    """A hook that returns the means in turn, repeatedly."""

    def __init__(self, turns: list[Tensor]) -> None:
        self.turns, self.calls = turns, 0

    def __call__(self, module: nn.Module, given: Any, found: Tensor) -> Tensor:
        self.calls += 1
        return self.turns[(self.calls - 1) % len(self.turns)].expand_as(found)


def _poolings(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]


def _added(sums: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    return [one + other for one, other in zip(sums, more, strict=True)]
