"""Free captions of your own images: how long and how repetitive they are, and files for judges elsewhere.

Whether such a caption is true needs a judge model. MMHal-Bench, Object HalBench, OpenCHAIR, THRONE and AMBER's
descriptions have theirs, which need a language model or vectors; `export_answers` writes what they read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .contract import Counted, Sample
from .tokens import words

__all__ = ["EXPORTS", "Captioning", "export_answers"]

_IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))


@dataclass(frozen=True, kw_only=True)
class Captioning:
    """The benchmark.

    Attributes:
        prompt: what is asked about every image.

    Example:
        >>> sample = Sample(id="a.jpg", image="a.jpg", question="Describe it.")
        >>> Captioning().count(sample, "A dog, a dog, a dog.")["words"].numbers["words"]
        6.0
    """

    prompt: str = "Please describe this image in detail."

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "captioning"

    def samples(self, data: Path) -> list[Sample]:
        """One question for every image of a folder and the folders in it.

        Raises:
            ValueError: no such folder, or no images in it.
        """
        if not data.is_dir():
            raise ValueError(f"there is no folder {data}; give one with images")
        paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in _IMAGES and path.is_file())
        if not paths:
            raise ValueError(f"{data} has no images; expected files that end in {', '.join(sorted(_IMAGES))}")
        files = [path.relative_to(data).as_posix() for path in paths]
        return [Sample(id=file, image=file, question=self.prompt) for file in files]

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """How many words a caption has, and how many of its 4-grams are repeats."""
        spoken = [word for word in words(answer.lower()) if any(letter.isalnum() for letter in word)]
        runs = [tuple(spoken[start : start + 4]) for start in range(len(spoken) - 3)]
        numbers = {
            "captions": 1.0,
            "empty": float(not spoken),
            "words": float(len(spoken)),
            "runs": float(len(runs)),
            "repeated": float(len(runs) - len(set(runs))),
        }
        return {"words": Counted(numbers=numbers)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Words a caption, share of runs of four words that repeat an earlier one, share of empty captions."""
        of = {name: np.asarray(value, float) for name, value in sums.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            metrics = {
                "words": of["words"] / of["captions"],
                "repeated_percent": 100 * of["repeated"] / of["runs"],
                "empty_percent": 100 * of["empty"] / of["captions"],
            }
        return {name: np.asarray(value) for name, value in metrics.items()}


def _number(sample: Sample) -> int | str:
    return int(sample.id) if sample.id.isascii() and sample.id.isdigit() else sample.id


def _chair(sample: Sample, answer: str) -> dict[str, Any]:
    return {"image_id": _number(sample), "caption": answer}


def _amber(sample: Sample, answer: str) -> dict[str, Any]:
    return {"id": _number(sample), "response": answer}


def _judge(sample: Sample, answer: str) -> dict[str, Any]:
    return {
        "id": sample.id,
        "image": sample.image,
        "question": sample.question,
        "answer": answer,
        "part": sample.part,
        "truth": sample.truth,
    }


#: Form -> one entry of it. `chair` for CHAIR's scripts and COCO's caption tools, `amber` for AMBER's, both a JSON list;
#: `judge` for your own judge, JSON lines with everything that is known of a question.
EXPORTS = {"chair": _chair, "amber": _amber, "judge": _judge}


def export_answers(samples: Sequence[Sample], answers: Sequence[str], path: Path, form: str = "judge") -> None:
    """Write answers of any benchmark for another program.

    Args:
        samples: the questions.
        answers: one each.
        path: the file to write.
        form: a name of `EXPORTS`.

    Raises:
        ValueError: an unknown form, or not one answer a question.
    """
    if form not in EXPORTS:
        raise ValueError(f"no form of answers is called {form!r}; known: {', '.join(EXPORTS)}")
    if len(samples) != len(answers):
        raise ValueError(f"got {len(answers)} answers to {len(samples)} questions; give one each")
    rows = [EXPORTS[form](sample, answer) for sample, answer in zip(samples, answers, strict=True)]
    if form == "judge":
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
