"""Benchmarks by the text form of the command line: published ones, rendered scenes, and your own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from ...class_names import class_named
from ...datasets import read_image
from ...mllm.benchmarks import BENCHMARKS, Benchmark, Sample
from ...mllm.benchmarks.reading import find_images
from ...mllm.option_grammar import build as build_options
from ...mllm.option_grammar import parse_calls
from .scene_benchmarks import SCENE_BENCHMARKS

__all__ = ["KNOWN", "LONGEST", "ImageOpener", "build", "image_opener", "options_of", "parse_benchmark"]

#: Name -> "module:Class".
KNOWN = {name: f"mllm.benchmarks.{path}" for name, path in BENCHMARKS.items()} | {
    name: f"tools.evaluate.scene_benchmarks:{one.__name__}" for name, one in SCENE_BENCHMARKS.items()
}
#: Longest answer in tokens, by default: room for a sentence, or for a description.
LONGEST = {"pope": 64, "mme": 64, "hallusionbench": 64, "scene_captions": 60, "scene_questions": 4}
LONGEST_DESCRIPTION = 512

#: What opens the image of a question; raises ValueError where it cannot.
ImageOpener = Callable[[Sample], Image.Image | None]


def parse_benchmark(text: str, **more: Any) -> tuple[str, Benchmark]:
    """A benchmark and the name that it goes by.

    Args:
        text: NAME or NAME(option=value, option=value).
        more: options that the text does not have, if the benchmark has them.

    Raises:
        ValueError: no such benchmark or option, or a value that does not fit.

    Example:
        >>> parse_benchmark('pope(parser="words")', seed=3)
        ('pope', POPE(suffix='', parser='words'))
    """
    named = parse_calls(text, KNOWN, "benchmark")
    if len(named) != 1:
        raise ValueError(f"one benchmark was expected; {text!r} names {len(named)}. Give --benchmark once for each")
    [(name, options)] = named
    known = {field.name for field in dataclasses.fields(_class(name))}
    return name, build(name, {key: value for key, value in more.items() if key in known} | options)


def build(name: str, options: dict[str, Any]) -> Benchmark:
    """A benchmark from its name and options.

    Raises:
        ValueError: no such benchmark or option, or a value that does not fit.
    """
    return build_options(_class(name), f"benchmark {name}", options)


def options_of(benchmark: Any) -> dict[str, Any]:
    """The options of a benchmark, which its name and they build again."""
    return dataclasses.asdict(benchmark)


def image_opener(benchmark: Any, samples: Iterable[Sample], folder: Path) -> tuple[ImageOpener, list[str]]:
    """What opens images, and which are not there.

    Args:
        benchmark: with a method `open_image` of its own, or with images in files.
        samples: its questions.
        folder: of the images.

    Returns:
        What opens the image of a question, and the names of missing images.

    Raises:
        ValueError: there is no such folder, or a name leads out of it.
    """
    if hasattr(benchmark, "open_image"):
        return benchmark.open_image, []
    found, missing = find_images(folder, samples)

    def open_image(sample: Sample) -> Image.Image | None:
        if sample.image and sample.image not in found:
            raise ValueError(f"the image {sample.image} is not in {folder}")
        return read_image(found[sample.image]) if sample.image else None

    return open_image, missing


def _class(name: str) -> type[Any]:
    cls = class_named(name, "benchmark", KNOWN, "regard")
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"the benchmark {name} is not a dataclass of options, see regard.mllm.benchmarks.contract")
    return cls
