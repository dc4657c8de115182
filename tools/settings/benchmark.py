"""Settings of `regard benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["BenchmarkSettings"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Time and memory of blocks alone, or of --hosts, --lvlms, bag --heads, readers of --slides, --restorers.

    Attributes:
        blocks: names of blocks or package.module:Class; alone, not in hosts, also van_block, the whole block of the VAN
            backbone, vig_memory, ViG's recurrence without the layers around it, and hat_windows, HAT's window attention
            without the convolutions beside it. Without it van, van_block and
            ela; in hosts none, so that the hosts themselves are measured.
        options: keyword arguments of a block by its name, e.g. '{halonet: {block_size: 8}}'.
        hosts: models of timm or Regard; each is measured as it is and with every block in it.
        host_options: keyword arguments of a host by its name, e.g. '{vit_tiny_patch16_224: {class_token: false,
            global_pool: avg}}'.
        base: model that hosts and blocks are compared with; without it each host.
        lvlms: vision-language models, each measured with every fix: embedded, random (330 million random weights, 576
            image tokens), or a folder.
        fixes: methods beside the baseline, e.g. 'vhr:alpha=1.5'.
        new_tokens: how many tokens are generated.
        heads: multiple-instance heads, each measured in a training step beside torchmil's: abmil, dsmil,
            dsmil_nonlinear, transmil.
        instances: how many a bag has, for heads.
        features: width of an instance, for heads.
        chunk: instances that a head projects at a time; with it one training step of each head alone is measured, for
            bags that do not fit otherwise.
        slides: sides of square slides in pixels, e.g. 8192; each is written, and read beside OpenSlide and tiffslide,
            alone and with a small encoder. It also measures the memory that a slide of 100,000 pixels a side takes.
        restorers: networks that restore images of sides x sides pixels, beside their plain formulation: names of
            regard list or embedded ones, or folders.
        overlaps: for restorers: overlaps of tiles, in windows; how far the result is from the image restored at once.
        tile: side of these tiles, in pixels.
        image_size: side of the images for hosts, in pixels.
        sides: heights of the square maps for blocks alone, in tokens.
        dim: width of a token for blocks alone.
        batch: maps or images in a batch.
        passes: forward is inference; training is forward and backward.
        layouts: memory order of what our block alone is given; the plain formulation always has NCHW.
        beside: what a block alone is timed beside: its plain formulation, softmax attention.
        repeats: timings of each, taken in turns.
        threads: CPU threads.
        device: cpu, cuda or cuda:1.
        dtype: type of weights and tokens.
        memory_limit_gb: softmax attention is left out where its weights alone would take more.
        out: JSON file for the figures; null writes none.
        markdown: file for the table as Markdown; null writes none.
    """

    blocks: list[str] | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    host_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: str | None = None
    lvlms: list[str] = field(default_factory=list)
    fixes: list[str] = field(
        default_factory=lambda: ["pai:gamma=1", "rebalance:gamma=1", "var", "vhr", "pai", "vdd", "vcd"]
    )
    new_tokens: int = 64
    heads: list[str] = field(default_factory=list)
    instances: list[int] = field(default_factory=lambda: [10000])
    features: int = 1024
    chunk: int | None = None
    slides: list[int] = field(default_factory=list)
    restorers: list[str] = field(default_factory=list)
    overlaps: list[int] = field(default_factory=list)
    tile: int = 128
    image_size: int = 224
    sides: list[int] = field(default_factory=lambda: [14, 28, 56])
    dim: int = 64
    batch: int = 8
    passes: list[Literal["forward", "training"]] = field(default_factory=lambda: ["forward", "training"])
    layouts: list[Literal["nhwc", "nchw"]] = field(default_factory=lambda: ["nhwc"])
    beside: list[Literal["plain", "softmax"]] = field(default_factory=lambda: ["plain", "softmax"])
    repeats: int = 9
    threads: int = 1
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    memory_limit_gb: float = 2.0
    out: str | None = None
    markdown: str | None = None
