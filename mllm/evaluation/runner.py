"""Runs several arms on the same samples, batch by batch, into answer files from which an interrupted run resumes.

Batches are always cut from the list of all samples, whatever is answered already and in however many shards, since the
composition of a batch affects the last bits of every score. So interrupted, sharded and uninterrupted runs write the
same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..answer import Answer
from ..benchmarks import Sample
from ..lvlm import LVLM
from ..session.contract import Intervention
from .answer_files import StoredAnswer, activity_summary
from .answer_store import AnswerWriter
from .arm_settings import Arm

__all__ = ["Decoding", "SkippedImage", "answer_samples"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are generated.

    Attributes:
        max_new_tokens: maximum length of an answer, at least 1.
        temperature: 0 selects the most likely token.
        top_p: above 0 to 1.
        beams: at least 1.
        seed: of sampling; every batch derives its own seed from it, the same for all arms.
        batch_size: number of samples that are answered together.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    seed: int = 0
    batch_size: int = 8


@dataclass(frozen=True, kw_only=True)
class SkippedImage:
    """An image that cannot be read, whose samples are skipped.

    Attributes:
        image: as the benchmark names it.
        reason: the error.
        samples: number of its samples.
    """

    image: str
    reason: str
    samples: int


def answer_samples(
    lvlm: LVLM,
    samples: Sequence[Sample],
    open_image: Callable[[Sample], Image.Image | None],
    arms: Mapping[str, Sequence[Intervention]],
    settings: Mapping[str, Arm],
    folder: Path,
    decoding: Decoding,
    *,
    shard: int = 0,
    shards: int = 1,
    skip_unreadable: bool = False,
    step: Callable[[int], None] = lambda count: None,
) -> list[SkippedImage]:
    """Answer all samples that have no answer yet.

    Args:
        lvlm: the model.
        samples: all samples, whatever the shard.
        open_image: opens the image of a sample.
        arms: file name -> interventions, see `regard.mllm.evaluation.arm_settings.arm_file_name`.
        settings: file name -> settings of the arm.
        folder: of the answers.
        decoding: how answers are generated.
        shard: batch i belongs to shard i modulo `shards`.
        shards: number of shards.
        skip_unreadable: skip samples whose image cannot be read, instead of stopping.
        step: called after every batch with the number of its samples.

    Returns:
        The skipped images.

    Raises:
        ValueError: an image cannot be read and `skip_unreadable` is off, or as `AnswerWriter` or `LVLM.answer`.
        OSError: the disk is full; complete answers are kept.
    """
    unreadable: dict[str, SkippedImage] = {}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(AnswerWriter(folder, name, settings[name], shard=shard, shards=shards))
            for name in arms
        }
        for number, batch in _batches(samples, decoding.batch_size, shard, shards):
            lacking = {
                name: own
                for name, writer in writers.items()
                if (own := {sample.id for sample in batch if sample.id not in writer.done})
            }
            if lacking:
                opened = _opened(batch, open_image, unreadable, skip_unreadable)
                readable = {sample.id for sample, _ in opened}
                open_arms = {name: arms[name] for name, own in lacking.items() if own & readable}
                answers = _answers(lvlm, opened, open_arms, decoding, number)
                for name, own_answers in answers.items():
                    for (sample, _), answer in zip(opened, own_answers, strict=True):
                        if sample.id in lacking[name]:
                            writers[name].add(_stored(sample, answer))
            step(len(batch))
    return list(unreadable.values())


def _batches(
    samples: Sequence[Sample], batch_size: int, shard: int, shards: int
) -> Iterator[tuple[int, Sequence[Sample]]]:
    for number in range(shard, -(-len(samples) // batch_size), shards):
        yield number, samples[number * batch_size : (number + 1) * batch_size]


def _opened(
    batch: Sequence[Sample],
    open_image: Callable[[Sample], Image.Image | None],
    unreadable: dict[str, SkippedImage],
    skip: bool,
) -> list[tuple[Sample, Image.Image | None]]:
    found = []
    images: dict[str, Image.Image | None] = {}
    for sample in batch:
        known = unreadable.get(sample.image)
        if known is None and sample.image not in images:
            try:
                images[sample.image] = open_image(sample)
            except ValueError as error:
                if not skip:
                    raise ValueError(f"{error}. --missing_images skip leaves such images out") from error
                known = SkippedImage(image=sample.image, reason=str(error), samples=0)
        if known is not None:
            unreadable[sample.image] = replace(known, samples=known.samples + 1)
        else:
            found.append((sample, images[sample.image]))
    return found


def _answers(
    lvlm: LVLM,
    opened: Sequence[tuple[Sample, Image.Image | None]],
    arms: Mapping[str, Sequence[Intervention]],
    decoding: Decoding,
    number: int,
) -> dict[str, list[Answer]]:
    if not arms:
        return {}
    options: dict[str, Any] = asdict(decoding)
    options["seed"] = int(np.random.SeedSequence([decoding.seed, number]).generate_state(1)[0])
    batch_images, questions = [image for _, image in opened], [sample.question for sample, _ in opened]
    return lvlm.answer_arms(batch_images, questions, arms, allow_inactive=True, **options)


def _stored(sample: Sample, answer: Answer) -> StoredAnswer:
    return StoredAnswer(
        id=sample.id,
        text=answer.text,
        tokens=len(answer.tokens),
        at_limit=not answer.complete,
        activity=activity_summary(answer.activity),
    )
