"""Selections of decoder layers and attention heads: `"all"`, `"2:"`, `"1,-14:"` or a list of indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["head_mask", "layer_indices"]


def layer_indices(layers: str | Sequence[int], count: int) -> list[int]:
    """Sorted indices of the selected decoder layers.

    Args:
        layers: `"all"`; a Python slice such as `"2:"`, `"2:-1"` or `"-14:"`; several slices and indices separated by
            commas, `"1,-14:"`; or a sequence of indices. Negative indices count from the end.
        count: number of layers of the model.

    Raises:
        ValueError: the selection cannot be parsed, is empty, or includes a layer that the model does not have.

    Example:
        >>> layer_indices("1,-3:", 6)
        [1, 3, 4, 5]
    """
    chosen: set[int] = set()
    parts = layers.split(",") if isinstance(layers, str) else layers
    for part in parts:
        if part == "all":
            chosen.update(range(count))
        elif isinstance(part, str) and ":" in part:
            try:
                bounds = [int(bound) if bound.strip() else None for bound in part.split(":")]
                chosen.update(range(count)[slice(*bounds)])
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"cannot parse the layers {layers!r}; valid are all, 2:, 2:-1, -14: and 0,3,5"
                ) from error
        else:
            try:
                index = int(part)
            except ValueError as error:
                raise ValueError(
                    f"cannot parse the layers {layers!r}; valid are all, 2:, 2:-1, -14: and 0,3,5"
                ) from error
            if not -count <= index < count:
                raise ValueError(
                    f"layer {index} of {layers!r} does not exist; the model has {count} layers, 0 to {count - 1}"
                )
            chosen.add(index % count)
    if not chosen:
        raise ValueError(f"the layers {layers!r} select none of the model's {count} layers, 0 to {count - 1}")
    return sorted(chosen)


def head_mask(heads: str | Sequence[int], count: int, device: torch.device) -> Bool[Tensor, " heads"]:
    """Boolean mask of the selected heads; `heads` has the form of `layers` in `layer_indices`."""
    mask = torch.zeros(count, dtype=torch.bool, device=device)
    mask[layer_indices(heads, count)] = True
    return mask
