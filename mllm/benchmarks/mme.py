"""MME: two questions about every image, one of which is to be answered with no.

Source: Fu et al. 2023, arXiv:2306.13394. A subtask scores 100 x (right answers / questions) + 100 x (images with both
right / images), at most 200. Four subtasks are about hallucination: existence, count, position and color.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .contract import Counted, Sample
from .reading import read_text
from .yes_no import PARSERS, check_parser

__all__ = ["HALLUCINATION", "MME", "SUBTASKS"]

#: Subtasks that are about hallucination, of objects and of attributes.
HALLUCINATION = ("existence", "count", "position", "color")
_PERCEPTION = (*HALLUCINATION, "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

#: All subtasks, by their names in the release.
SUBTASKS = (*_PERCEPTION, *_COGNITION)

_IMAGES = (".jpg", ".png", ".jpeg")
_EXPECTED = (
    f"folders or text files named after subtasks ({', '.join(SUBTASKS[:4])} ...), as in MME_Benchmark_release or its "
    "eval_tool/Your_Results"
)


@dataclass(frozen=True, kw_only=True)
class MME:
    """The benchmark.

    Attributes:
        subtasks: `hallucination` for its four, `all`, or one of `SUBTASKS`.
        parser: of yes and no, whose score comes first.

    Raises:
        ValueError: an unknown subtask or parser.

    Example:
        >>> sample = Sample(id="1", image="1.jpg", question="Is there a dog?", truth="yes", part="existence")
        >>> MME().count(sample, "Yes.")["mme"].correct
        True
    """

    subtasks: str = "hallucination"
    parser: str = "mme"

    def __post_init__(self) -> None:
        check_parser(self.parser)
        if self.subtasks not in ("hallucination", "all", *SUBTASKS):
            raise ValueError(f"MME has no subtask {self.subtasks!r}; known: hallucination, all, {', '.join(SUBTASKS)}")

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "mme"

    def samples(self, data: Path) -> list[Sample]:
        """Read the questions of the subtasks that are wanted and there.

        Args:
            data: the release, with a folder a subtask that has a text file next to each image (or in
                `questions_answers_YN`, with the images in `images`); or a folder of one text file a subtask, whose
                lines are image, question and answer with tabs between.

        Raises:
            ValueError: nothing of that form, a damaged line, or an image without one yes and one no.
        """
        wanted = {"hallucination": HALLUCINATION, "all": SUBTASKS}.get(self.subtasks, (self.subtasks,))
        found: list[Sample] = []
        for part in wanted:
            if (data / f"{part}.txt").is_file():
                rows = _rows(data / f"{part}.txt", 3)
                pairs = [(f"{part}/{image}", question, label) for image, question, label in rows]
            elif (data / part).is_dir():
                pairs = _of_folder(data, part)
            else:
                continue
            labels: dict[str, Counter[str]] = {}
            for image, question, label in pairs:
                nth = labels.setdefault(image, Counter()).total()
                labels[image][label] += 1
                stem = Path(image).stem
                found.append(
                    Sample(
                        id=f"{part}-{stem}-{nth + 1}",
                        image=image,
                        question=question,
                        truth=label,
                        part=part,
                        groups={part: image},
                    )
                )
            for image, there in labels.items():
                if there != {"yes": 1, "no": 1}:
                    raise ValueError(f"{image} in {data} has {dict(there)} for labels; MME has one yes and one no each")
        if not found:
            raise ValueError(f"{data} has none of the subtasks {', '.join(wanted)}; expected {_EXPECTED}")
        return found

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """The parsed answer and whether it is correct, under every parser."""
        counted = {}
        for name in (self.parser, *(other for other in PARSERS if other != self.parser)):
            parsed = PARSERS[name](answer, sample.truth)
            numbers = {f"{part}_{what}": 0.0 for part in SUBTASKS for what in ("answers", "right")}
            numbers |= {"yes": float(parsed == "yes"), "unknown": float(parsed == "unknown")}
            numbers[f"{sample.part}_answers"] = 1.0
            numbers[f"{sample.part}_right"] = float(parsed == sample.truth)
            counted[name] = Counted(numbers=numbers, correct=parsed == sample.truth, parsed=parsed)
        return counted

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Scores: of the subtasks that are there together, of the published sets of them, and of each.

        `hallucination` (at most 800), `perception` (2000) and `cognition` (800) are nan unless all of their subtasks
        are there. The numbers of groups (`regard.mllm.evaluation.aggregate`) have to be among the sums.
        """
        of = {name: np.asarray(value, float) for name, value in sums.items()}
        nothing = np.zeros_like(of["yes"])
        scores, answers, right = {}, nothing, nothing
        with np.errstate(divide="ignore", invalid="ignore"):
            for part in SUBTASKS:
                answers, right = answers + of[f"{part}_answers"], right + of[f"{part}_right"]
                both = of.get(f"{part}_groups_right", nothing) / of.get(f"{part}_groups", nothing)
                scores[part] = 100 * of[f"{part}_right"] / of[f"{part}_answers"] + 100 * both
            metrics = {
                "score": np.nansum(list(scores.values()), axis=0),
                "accuracy": right / answers,
                "hallucination": np.sum([scores[part] for part in HALLUCINATION], axis=0),
                "perception": np.sum([scores[part] for part in _PERCEPTION], axis=0),
                "cognition": np.sum([scores[part] for part in _COGNITION], axis=0),
                "yes_percent": 100 * of["yes"] / answers,
                "unknown": of["unknown"],
                **scores,
            }
        return {name: np.asarray(value) for name, value in metrics.items()}


def _of_folder(data: Path, part: str) -> list[tuple[str, str, str]]:
    folder = data / part
    separate = (folder / "questions_answers_YN").is_dir()
    texts = sorted((folder / "questions_answers_YN" if separate else folder).glob("*.txt"))
    if not texts:
        raise ValueError(f"{folder} has no text files with questions; expected {_EXPECTED}")
    pairs = []
    for path in texts:
        images = folder / "images" if separate else folder
        found = next((images / f"{path.stem}{end}" for end in _IMAGES if (images / f"{path.stem}{end}").exists()), None)
        image = (found or images / f"{path.stem}.jpg").relative_to(data).as_posix()
        pairs += [(image, question, label) for question, label in _rows(path, 2)]
    return pairs


def _rows(path: Path, columns: int) -> list[list[str]]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            row = [cell.strip() for cell in line.split("\t")][:columns]
            if len(row) < columns or row[-1].lower() not in ("yes", "no"):
                form = "question and yes or no" if columns == 2 else "image, question and yes or no"
                raise ValueError(f"{path}, line {number} is {line[:60]!r}; it must be {form}, with tabs between")
            rows.append([*row[:-1], row[-1].lower()])
    return rows
