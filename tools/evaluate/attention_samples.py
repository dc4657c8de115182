"""Where each arm looked at every word of its answer, for a few questions of an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...mllm import LVLM
from ...mllm.benchmarks import Sample
from ...mllm.evaluation.runner import Decoding
from ...whole_files import whole_file
from ..look.attention_maps import Row, draw_attention, words_seen
from .benchmarks import ImageOpener
from .report.data import image_path

__all__ = ["draw_attention_samples"]

#: Longest answer that is drawn, in tokens.
_LONGEST = 60


def draw_attention_samples(
    lvlm: LVLM,
    samples: Sequence[Sample],
    open_image: ImageOpener,
    interventions: Mapping[str, Any],
    folder: Path,
    count: int,
    decoding: Decoding,
) -> None:
    """Draw the first questions; plots that are there stay.

    Args:
        lvlm: the model; nothing is drawn for one whose image tokens lie on no grid, with a warning.
        samples: the questions.
        open_image: opens the image of a question.
        interventions: text form -> interventions.
        folder: of the benchmark.
        count: how many questions are drawn.
        decoding: of the answers; at most 60 tokens are drawn.
    """
    drawn = 0
    for row, sample in enumerate(samples):
        if drawn == count:
            return
        try:
            image = open_image(sample)
        except ValueError:
            continue  # named where it was asked
        if image is None:
            continue
        drawn += 1
        lacking = {
            intervention: own
            for intervention, own in interventions.items()
            if not image_path(folder, row, intervention).is_file()
        }
        if not lacking:
            continue
        try:
            answers = lvlm.answer_arms(
                [image],
                [sample.question],
                lacking,
                max_new_tokens=min(decoding.max_new_tokens, _LONGEST),
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                seed=decoding.seed,
                allow_inactive=True,
                watch=True,
            )
            seen = lvlm.seen_images(lvlm.prepare([image], [sample.question]))
        except ValueError as error:
            sys.stderr.write(f"No images of attention: {error}\n")
            return
        for intervention, [answer] in answers.items():
            path = image_path(folder, row, intervention)
            assert answer.attention is not None
            rows = [Row(intervention or "baseline", *words_seen(answer.tokens, answer.attention[0].float().numpy()))]
            with whole_file(path) as partial:
                draw_attention(seen[0] if seen else image, rows, sample.question, partial)
