"""`regard build-pope`: POPE's questions about your own annotated images."""

from __future__ import annotations

from pathlib import Path

from ...mllm.benchmarks.pope_build import build_pope, write_pope
from ..settings import BuildPopeSettings

__all__ = ["run"]


def run(settings: BuildPopeSettings) -> int:
    """Draw the questions, write them and print what to do next.

    Args:
        settings: see `BuildPopeSettings`.

    Returns:
        0.

    Raises:
        ValueError: the file is missing or damaged, or has too few images or classes.
        OSError: the output folder cannot be written.
    """
    splits = build_pope(
        Path(settings.instances), settings.seed, images=settings.images, pairs=settings.pairs, imange=settings.imange
    )
    for path, questions in zip(write_pope(splits, Path(settings.out)), splits.values(), strict=True):
        print(f"{path}: {len(questions)} questions about {settings.images} images")
    print(f"regard evaluate --model MODEL --benchmark pope --data {settings.out} --image_folder FOLDER_OF_IMAGES")
    return 0
