"""A function of instances, applied to a bag block by block, with or without keeping what its gradient needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["in_blocks"]


def in_blocks(
    function: Callable[..., Any],
    bag: Float[Tensor, "bags instances dim"],
    dtype: torch.dtype,
    *,
    chunk: int | None = None,
    rows: int | None = None,
    beside: Float[Tensor, "bags maps instances"] | None = None,
) -> Iterator[tuple[slice, Any]]:
    """Places of blocks and what a function makes of them.

    Args:
        function: of a block of instances, and of its part of `beside` if there is that; what it draws at random is
            drawn again when it is repeated.
        bag: instances, of any floating type.
        dtype: what a block is cast to.
        chunk: instances at a time, if the function shall be repeated for its gradient rather than kept.
        rows: instances at a time otherwise; None takes all at once.
        beside: something for each instance.

    Example:
        >>> [float(total) for _, total in in_blocks(torch.sum, torch.ones(1, 5, 2), torch.float32, chunk=2)]
        [4.0, 4.0, 2.0]
    """

    def of(block: Tensor, *parts: Tensor) -> Any:
        return function(block.to(dtype), *parts)

    count = bag.shape[1]
    step = chunk or rows or count
    for start in range(0, count, step):
        place = slice(start, min(start + step, count))
        parts = [bag[:, place], *([] if beside is None else [beside[:, :, place]])]
        yield place, checkpoint(of, *parts, use_reentrant=False) if chunk else of(*parts)
