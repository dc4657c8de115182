"""Apply a function to a bag in blocks of instances, storing or recomputing what its gradient needs."""

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
    maps: Float[Tensor, "bags maps instances"] | None = None,
) -> Iterator[tuple[slice, Any]]:
    """Yield the slice of each block of instances and the function's result for it.

    Args:
        function: of a block of instances, and of its slice of `maps` if that is given. Its random draws are
            repeated when it is recomputed.
        bag: instances of any floating-point type.
        dtype: type to which a block is cast.
        chunk: instances of a block, if the function is recomputed in the backward pass.
        rows: instances of a block otherwise; None for one block.
        maps: further values of each instance.

    Example:
        >>> [float(total) for _, total in in_blocks(torch.sum, torch.ones(1, 5, 2), torch.float32, chunk=2)]
        [4.0, 4.0, 2.0]
    """

    def apply(block: Tensor, *parts: Tensor) -> Any:
        return function(block.to(dtype), *parts)

    count = bag.shape[1]
    step = chunk or rows or count
    for start in range(0, count, step):
        span = slice(start, min(start + step, count))
        parts = [bag[:, span], *([] if maps is None else [maps[:, :, span]])]
        yield span, checkpoint(apply, *parts, use_reentrant=False) if chunk else apply(*parts)
