"""Settings of `regard benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BenchmarkSettings"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Time and memory of attention blocks, beside their plain formulation and softmax attention.

    Attributes:
        blocks: names of blocks, package.module:Class, or van_block for the whole block of the VAN backbone.
        sides: heights of the square maps, in tokens.
        dim: width of a token.
        batch: maps in a batch.
        passes: forward is inference; training is forward and backward.
        layouts: memory order of what our block is given; the plain formulation always has NCHW.
        repeats: timings of each, taken in turns.
        threads: CPU threads.
        device: cpu, cuda or cuda:1.
        dtype: type of weights and tokens.
        memory_limit_gb: softmax attention is left out where its weights alone would take more.
        out: JSON file for the figures; null writes none.
    """

    blocks: list[str] = field(default_factory=lambda: ["van", "van_block", "ela"])
    sides: list[int] = field(default_factory=lambda: [14, 28, 56])
    dim: int = 64
    batch: int = 8
    passes: list[Literal["forward", "training"]] = field(default_factory=lambda: ["forward", "training"])
    layouts: list[Literal["nhwc", "nchw"]] = field(default_factory=lambda: ["nhwc"])
    repeats: int = 9
    threads: int = 1
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    memory_limit_gb: float = 2.0
    out: str | None = None
