"""MMHal-Bench: questions that invite invention, with free answers that a judge elsewhere marks.

Source: Sun et al. 2023, arXiv:2309.14525; https://huggingface.co/datasets/Shengcao1006/MMHal-Bench, eval_gpt4.py. There
are 96 questions of eight kinds. GPT-4 compares the answer with one by a person and a list of what is in the image, and
marks it from 0 to 6; from 3 on it invents nothing. No judge runs here: `write_for_judge` writes what it reads, and
`read_judgements` reads what it wrote. Any other file of that form will do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .captioning import Captioning
from .contract import Counted, Sample
from .reading import field_of, files_in, read_json, read_json_lines

__all__ = ["MMHal", "read_judgements", "write_for_judge"]

_EXPECTED = "response_template.json of Shengcao1006/MMHal-Bench"
_MARKS = range(7)
_GOOD_MARK = 3


@dataclass(frozen=True, kw_only=True)
class MMHal:
    """The benchmark, up to the judge.

    Example:
        >>> sample = Sample(id="0", image="a.jpg", question="What colour is the dog?")
        >>> MMHal().count(sample, "There is no dog.")["words"].numbers["words"]
        4.0
    """

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "mmhal"

    def samples(self, data: Path) -> list[Sample]:
        """Read the questions. The index of one in the file is its id, the last part of its `image_src` the image.

        Args:
            data: response_template.json, or the folder that has it.

        Raises:
            ValueError: no such file, or a damaged one.
        """
        path = files_in(data, ("response_template.json",), _EXPECTED)[0]
        found = []
        for number, row in enumerate(read_json_lines(path)):
            where = f"{path}, question {number + 1}"
            source, question, kind = (
                field_of(row, name, str, where) for name in ("image_src", "question", "question_type")
            )
            image = source.rpartition("/")[2]
            found.append(Sample(id=str(number), image=image, question=question, truth=row, part=kind))
        return found

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """How long and how repetitive an answer is."""
        return Captioning().count(sample, answer)

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Those of captions, see `regard.mllm.benchmarks.captioning.Captioning`; marks are for the judge."""
        return Captioning().metrics(sums)


def write_for_judge(samples: Sequence[Sample], answers: Sequence[str], path: Path) -> None:
    """Write the file that was read, with `model_answer` filled in.

    Args:
        samples: of `MMHal`.
        answers: one each.
        path: the file to write.

    Raises:
        ValueError: not one answer a question.
    """
    if len(samples) != len(answers):
        raise ValueError(f"got {len(answers)} answers to {len(samples)} questions; give one each")
    rows = [{**sample.truth, "model_answer": answer} for sample, answer in zip(samples, answers, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_judgements(path: Path, samples: Sequence[Sample]) -> dict[str, float]:
    """The scores that a judge's replies come to.

    A mark is the digit behind "rating:". As in the authors' script, a reply without one mark, or with several, counts
    as 0.

    Args:
        path: a JSON list of replies in the order of the questions: texts, or what OpenAI's interface returns.
        samples: of `MMHal`.

    Returns:
        score: mean mark, 0-6. hallucination: share of marks below 3, 0-1. unreadable: replies without one mark.
        score_KIND: mean mark of a kind of question.

    Raises:
        ValueError: the file is missing or damaged, or has not one reply a question.
    """
    replies = read_json(path)
    if not isinstance(replies, list) or len(replies) != len(samples) or not samples:
        given = f"{len(replies)} replies" if isinstance(replies, list) else "no list of replies"
        raise ValueError(f"{path} has {given} to {len(samples)} questions; a judge gives one each, in their order")
    found = [_marks(_text_of(reply, f"{path}, reply {number}")) for number, reply in enumerate(replies, 1)]
    marks = np.array([one[0] if len(one) == 1 else 0 for one in found], dtype=float)
    scores = {
        "score": float(marks.mean()),
        "hallucination": float((marks < _GOOD_MARK).mean()),
        "unreadable": float(sum(len(one) != 1 for one in found)),
    }
    kinds = [sample.part for sample in samples]
    for kind in dict.fromkeys(kinds):
        scores[f"score_{kind}"] = float(marks[[one == kind for one in kinds]].mean())
    return scores


def _marks(text: str) -> list[int]:
    return [mark for mark in _MARKS if f"rating: {mark}" in text.lower()]


def _text_of(reply: Any, where: str) -> str:
    try:
        text = reply if isinstance(reply, str) else reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ValueError(f"{where} is not a text, and has none at choices[0].message.content: {str(reply)[:40]!r}")
    return text
