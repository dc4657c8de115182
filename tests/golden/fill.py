"""Weights and inputs made from names alone, so that a golden file stores neither.

Every tensor comes from NumPy's PCG64 seeded with the CRC-32 of its name: it depends on name and shape only.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def normal(name: str, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 numbers of `shape`, seeded by `name`."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def fill(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A tensor for every name.

    With n standard normal: running variances are 1 + 0.2|n|, tensors of two or more axes n / sqrt(fan-in),
    other `*weight` 1 + 0.1n, all else 0.1n; names ending in `num_batches_tracked` are the integer 0.
    """
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name: str, shape: Sequence[int]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    numbers = normal(name, shape)
    if name.endswith("running_var"):
        return 1 + 0.2 * numbers.abs()
    if len(shape) >= 2:
        return numbers / math.sqrt(math.prod(shape[1:]))
    if name.endswith("weight"):
        return 1 + 0.1 * numbers
    return 0.1 * numbers
