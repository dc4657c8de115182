"""Arms over the same questions, batch by batch, into files of answers that a stopped run goes on with.

Batches are cut from the list of all questions, whatever is answered already and however the list is shared out, since
what is answered together decides the last bits of every score. So a broken run, a run in shards and an unbroken one
write the same answers.
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
from ..session.edit import Intervention
from .answer_files import StoredAnswer, activity_summary
from .answer_store import AnswerWriter
from .arm_settings import Arm

__all__ = ["Decoding", "LeftOut", "answer_samples"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are made.

    Attributes:
        max_new_tokens: longest answer, at least 1.
        temperature: 0 takes the likeliest token.
        top_p: above 0 to 1.
        beams: at least 1.
        seed: of the draws; every batch has its own draws from it, the same for all arms.
        batch_size: questions that are answered together.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    seed: int = 0
    batch_size: int = 8


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image whose questions nobody answered.

    Attributes:
        image: as the benchmark names it.
        reason: why it cannot be read.
        samples: how many questions are about it.
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
) -> list[LeftOut]:
    """Answer what is not answered yet.

    Args:
        lvlm: the model.
        samples: all questions, whatever the shard.
        open_image: opens the image of a question.
        arms: name of a file -> methods, see `regard.mllm.evaluation.arm_settings.arm_file_name`.
        settings: name of a file -> everything its answers depend on.
        folder: of the answers.
        decoding: how answers are made.
        shard: which batches are answered: batch i belongs to shard i modulo `shards`.
        shards: how many parts there are.
        skip_unreadable: leave questions out whose image cannot be read, instead of stopping.
        step: is told how many questions of the shard are done, batch by batch.

    Returns:
        Images that were left out.

    Raises:
        ValueError: an image cannot be read, and `skip_unreadable` is off; other settings, see `AnswerWriter`; or what
            `LVLM.answer` raises.
        OSError: the disk is full; whole answers stay.
    """
    unreadable: dict[str, LeftOut] = {}
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
                there = {sample.id for sample, _ in opened}
                open_arms = {name: arms[name] for name, own in lacking.items() if own & there}
                answers = _answers(lvlm, opened, open_arms, decoding, number)
                for name, said in answers.items():
                    for (sample, _), answer in zip(opened, said, strict=True):
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
    unreadable: dict[str, LeftOut],
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
                    raise ValueError(f"{error}. --missing_images skip goes on without such images") from error
                known = LeftOut(image=sample.image, reason=str(error), samples=0)
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
