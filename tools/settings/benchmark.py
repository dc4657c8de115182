"""Settings of `regard benchmark`, a class a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .names import InterventionText
from .types import Checked, NonNegativeInt, PositiveFloat, PositiveInt, Within

__all__ = [
    "BenchmarkBlocksSettings",
    "BenchmarkHeadsSettings",
    "BenchmarkHostsSettings",
    "BenchmarkLvlmSettings",
    "BenchmarkRestorersSettings",
    "BenchmarkSlidesSettings",
    "ReportSettings",
    "TimingSettings",
]

Passes = list[Literal["forward", "training"]]


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Checked):
    """How often something is timed, and where the figures go.

    Attributes:
        repeats: timings of each contestant, interleaved.
        threads: CPU threads.
        out: JSON file for the figures; null writes none.
        markdown: file for the table as Markdown; null writes none.
    """

    repeats: PositiveInt = 9
    threads: PositiveInt = 1
    out: str | None = None
    markdown: str | None = None


@dataclass(frozen=True, kw_only=True)
class TimingSettings(ReportSettings):
    """Where a network is timed.

    Attributes:
        device: cpu, cuda or cuda:N.
        dtype: type of weights and inputs.
    """

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class BenchmarkBlocksSettings(TimingSettings):
    """Time and memory of attention blocks, compared with their plain formulation and softmax attention.

    Attributes:
        blocks: names of blocks or package.module:Class; also van_block (the whole block of the VAN backbone),
            vig_memory (ViG's recurrence without the layers around it) and hat_windows (HAT's window attention without
            the convolutions next to it).
        options: keyword arguments of a block by its name, such as '{halonet: {block_size: 8}}'.
        sides: heights of the square maps, in tokens.
        dim: width of a token.
        batch: maps in a batch.
        passes: forward is inference; training is forward and backward.
        layouts: memory order of our block's input; the plain formulation always gets NCHW.
        baselines: what a block is compared with.
        memory_limit_gb: softmax attention is omitted where its weights alone would take more.
    """

    blocks: list[str] = field(default_factory=lambda: ["van", "van_block", "ela"])
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    sides: list[PositiveInt] = field(default_factory=lambda: [14, 28, 56])
    dim: PositiveInt = 64
    batch: PositiveInt = 8
    passes: Passes = field(default_factory=lambda: ["forward", "training"])
    layouts: list[Literal["nhwc", "nchw"]] = field(default_factory=lambda: ["nhwc"])
    baselines: list[Literal["plain", "softmax"]] = field(default_factory=lambda: ["plain", "softmax"])
    memory_limit_gb: PositiveFloat = 2.0

    def check_together(self) -> None:
        """Options are those of blocks that are measured."""
        _check_options("options", self.options, "blocks", self.blocks)


@dataclass(frozen=True, kw_only=True)
class BenchmarkHostsSettings(TimingSettings):
    """Time and memory of whole models, each as it is and with every block in it.

    Attributes:
        hosts: models of timm or Regard.
        blocks: names of blocks or package.module:Class; none measures the hosts alone.
        options: keyword arguments of a block by its name, such as '{halonet: {block_size: 8}}'.
        host_options: keyword arguments of a host by its name, such as '{vit_tiny_patch16_224: {class_token: false,
            global_pool: avg}}'.
        base: model that hosts and blocks are compared with; by default each host.
        image_size: side of the images in pixels.
        batch: images in a batch.
        passes: forward is inference; training is forward and backward.
    """

    hosts: list[str]
    blocks: list[str] = field(default_factory=list)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    host_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: str | None = None
    image_size: PositiveInt = 224
    batch: PositiveInt = 8
    passes: Passes = field(default_factory=lambda: ["forward", "training"])

    def check_together(self) -> None:
        """Options are those of blocks and hosts that are measured."""
        _check_options("options", self.options, "blocks", self.blocks)
        _check_options("host_options", self.host_options, "hosts", [*self.hosts, self.base or ""])


@dataclass(frozen=True, kw_only=True)
class BenchmarkHeadsSettings(TimingSettings):
    """Time and memory of a training step of multiple-instance heads, compared with those of torchmil.

    Attributes:
        heads: abmil, dsmil, dsmil_nonlinear or transmil; with --chunk any head that supports chunks.
        instances: numbers of instances in a bag.
        features: width of an instance.
        chunk: instances that a head projects at a time; then one step of our head alone is measured, for bags that do
            not fit in memory otherwise.
    """

    heads: list[str]
    instances: list[PositiveInt] = field(default_factory=lambda: [10000])
    features: PositiveInt = 1024
    chunk: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkLvlmSettings(TimingSettings):
    """Time and memory of vision-language models with each intervention, compared with the baseline.

    Attributes:
        lvlms: models: embedded, random (330 million random weights, 576 image tokens), or folders.
        fix: interventions of one arm, compared with the baseline, such as 'vhr(alpha=1.5)'; may be repeated.
        new_tokens: number of generated tokens.
        batch: prompts in a batch.
    """

    lvlms: list[str]
    fix: list[InterventionText] = field(
        default_factory=lambda: ["pai:gamma=1", "rebalance:gamma=1", "var", "vhr", "pai", "vdd", "vcd"],
        metadata={"repeated": True},
    )
    new_tokens: Annotated[int, Within(2)] = 64
    batch: PositiveInt = 8


@dataclass(frozen=True, kw_only=True)
class BenchmarkSlidesSettings(ReportSettings):
    """Patches per second against OpenSlide and tiffslide, alone and with an encoder, and the memory of a huge slide.

    Attributes:
        slides: sides in pixels of square slides, which are written for it; 4352 or more.
        threads: CPU threads of the encoder.
    """

    slides: list[Annotated[int, Within(4352)]] = field(default_factory=lambda: [8192])


@dataclass(frozen=True, kw_only=True)
class BenchmarkRestorersSettings(TimingSettings):
    """Time and memory of image restorers compared with their plain formulation, or the error of restoring in tiles.

    Attributes:
        restorers: names of regard list, embedded restorers, or folders.
        sides: heights of the square images in pixels.
        plain: measure the plain formulation, too.
        overlaps: overlaps of tiles, in windows; then the difference to the image restored at once is measured.
        tile: side of these tiles in pixels.
    """

    restorers: list[str]
    sides: list[PositiveInt] = field(default_factory=lambda: [64, 128])
    plain: bool = True
    overlaps: list[NonNegativeInt] = field(default_factory=list)
    tile: PositiveInt = 128


def _check_options(name: str, options: dict[str, Any], where: str, measured: list[str]) -> None:
    for key in options:
        if key not in measured:
            raise ValueError(f"--{name} has options of {key!r}, which is not measured; name it in --{where}")
