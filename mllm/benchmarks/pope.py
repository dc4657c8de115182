"""POPE: "Is there a dog in the image?", half of the time about objects that are not there.

Source: Li et al. 2023, arXiv:2305.10355; AoiDragon/POPE@08d957b. Three splits differ in how the absent objects are
drawn: at random, among the most frequent (popular), or among those that most often co-occur with present objects
(adversarial).

The published files are JSON lines, whatever their name ends in, of 3000 questions each; an older `random` file has
2910, so the number of questions belongs to a score. Where the object begins with a vowel their questions partly end in
"in the imange?", which is kept: it is what models were asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .contract import Counted, Sample
from .reading import field_of, files_in, read_json_lines
from .yes_no import PARSERS, check_parser
from .yes_no_counts import count_yes_no, yes_no_metrics

__all__ = ["POPE", "POPE_SPLITS", "score_in_order"]

#: In the order of the paper.
POPE_SPLITS = ("random", "popular", "adversarial")

_QUESTION = re.compile(r"Is there an? (.+?) in the ima")
_EXPECTED = "the JSON lines of POPE, named after their split, e.g. coco_pope_adversarial.json"


@dataclass(frozen=True, kw_only=True)
class POPE:
    r"""The benchmark.

    Attributes:
        suffix: appended to every question, e.g. "\nAnswer the question using a single word or phrase.", as lmms-eval
            and LLaVA do; nothing in the paper.
        parser: of yes and no, whose score comes first; the others of `yes_no.PARSERS` are counted as well.

    Raises:
        ValueError: an unknown parser.

    Example:
        >>> sample = Sample(id="random-1", image="1.jpg", question="Is there a dog?", truth="no")
        >>> counted = POPE().count(sample, "I cannot see it. No.")
        >>> counted["official"].parsed, counted["words"].parsed
        ('yes', 'no')
    """

    suffix: str = ""
    parser: str = "official"

    def __post_init__(self) -> None:
        check_parser(self.parser)

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "pope"

    def samples(self, data: Path) -> list[Sample]:
        """Read the questions.

        Args:
            data: a folder with one file a split, or one of them.

        Raises:
            ValueError: no such file, two of one split, or a damaged one.
        """
        found: dict[str, Path] = {}
        for path in files_in(data, ("*.json", "*.jsonl"), _EXPECTED):
            part = next((split for split in POPE_SPLITS if split in path.name.lower()), "all")
            if part == "all" and data.is_dir():
                continue
            if part in found:
                raise ValueError(f"{found[part].name} and {path.name} are both of the split {part}; give one of them")
            found[part] = path
        if not found:
            raise ValueError(f"{data} has no file that is named after a split; expected {_EXPECTED}")
        order = sorted(found, key=(*POPE_SPLITS, "all").index)
        samples = [sample for part in order for sample in self._split(found[part], part)]
        present: dict[str, dict[str, None]] = {}
        for sample in samples:
            if sample.truth == "yes":
                present.setdefault(sample.image, {})[_object(sample.question)] = None
        return [replace(sample, present=tuple(filter(None, present.get(sample.image, ())))) for sample in samples]

    def _split(self, path: Path, part: str) -> Iterator[Sample]:
        seen = set()
        for number, row in enumerate(read_json_lines(path), 1):
            where = f"{path}, line {number}"
            key = field_of(row, "question_id", (int, str), where)
            if key in seen:
                raise ValueError(f"{where}: the question_id {key} is there twice; every question needs its own")
            seen.add(key)
            label = field_of(row, "label", str, where).strip().lower()
            if label not in ("yes", "no"):
                raise ValueError(f"{where} has the label {row['label']!r}; a label of POPE is yes or no")
            question = field_of(row, "text", str, where) + self.suffix
            image = field_of(row, "image", str, where)
            yield Sample(id=f"{part}-{key}", image=image, question=question, truth=label, part=part)

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """The parsed answer under every parser, and whether it is correct; a wrong yes invents the object."""
        counted = {}
        for name in (self.parser, *(other for other in PARSERS if other != self.parser)):
            parsed = PARSERS[name](answer, sample.truth)
            one = count_yes_no(parsed, sample.truth, dropped=name == "lmms_eval")
            wrong_yes = parsed == "yes" and sample.truth == "no"
            counted[name] = replace(one, invented=(_object(sample.question) or "?",)) if wrong_yes else one
        return counted

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Accuracy, precision, recall and F1 of "yes" (0-1), share of yes among answers, number of unknown ones."""
        return yes_no_metrics(sums)


def _object(question: str) -> str:
    """What a question is about; empty where it is not of POPE's form."""
    asked = _QUESTION.match(question)
    return asked[1] if asked else ""


def score_in_order(labels: Sequence[str], answers: Sequence[str], parser: str = "official") -> dict[str, float]:
    """The scores as the published scripts compute them: answers matched to questions by their order alone.

    With `lmms_eval`, `yes_ratio` is that of the *labels*, as its script reports it.

    Args:
        labels: yes or no.
        answers: one a label.
        parser: a name of `yes_no.PARSERS`.

    Returns:
        TP, FP, TN and FN (unknown answers are in none of them), accuracy, precision, recall, f1, yes_ratio (0-1); nan
        where the script would divide by zero.

    Raises:
        ValueError: the numbers differ, there are none, a label is neither yes nor no, or an unknown parser.

    Example:
        >>> score_in_order(["yes", "no"], ["Yes", "Nope"])["accuracy"]
        0.5
    """
    check_parser(parser)
    if len(labels) != len(answers) or not labels:
        raise ValueError(
            f"got {len(answers)} answers to {len(labels)} questions; one answer a question, in their order"
        )
    wrong = sorted(set(labels) - {"yes", "no"})
    if wrong:
        raise ValueError(f"a label is {wrong[0]!r}; labels are yes or no")
    parsed = [PARSERS[parser](answer, label) for answer, label in zip(answers, labels, strict=True)]
    dropped = parser == "lmms_eval"
    counted = [count_yes_no(one, label, dropped=dropped) for one, label in zip(parsed, labels, strict=True)]
    sums = {name: np.array(sum(one.numbers[name] for one in counted)) for name in counted[0].numbers}
    metrics = yes_no_metrics(sums)
    pairs = Counter(zip(parsed, labels, strict=True))
    return {
        "TP": float(pairs["yes", "yes"]),
        "FP": float(pairs["yes", "no"]),
        "TN": float(pairs["no", "no"]),
        "FN": float(pairs["no", "yes"]),
        **{name: float(metrics[name]) for name in ("accuracy", "precision", "recall", "f1")},
        "yes_ratio": (list(labels) if dropped else parsed).count("yes") / len(parsed),
    }
