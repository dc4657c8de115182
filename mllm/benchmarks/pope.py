"""POPE: "Is there a dog in the image?", half of the time about objects that are not there.

Source: Li et al. 2023, arXiv:2305.10355; AoiDragon/POPE@08d957b. Three splits differ in how the absent objects are drawn:
at random, among the most frequent ones (popular), or among those that usually come with what is there (adversarial).

The published files are JSON lines, whatever their name ends in, of 3000 questions each; an older `random` file has 2910,
so the number of questions belongs to a score. Where the object begins with a vowel their questions partly end in "in the
imange?", which is kept: it is what models were asked.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .coco import read_instances
from .contract import Counted, Sample
from .reading import field_of, files_in, read_json_lines
from .yes_no import PARSERS, Said, check_parser

__all__ = ["POPE", "POPE_SPLITS", "build_pope", "pope_question", "score_in_order", "write_pope"]

#: In the order of the paper.
POPE_SPLITS = ("random", "popular", "adversarial")

_EXPECTED = "the JSON lines of POPE, named after their split, e.g. coco_pope_adversarial.json"


@dataclass(frozen=True, kw_only=True)
class POPE:
    """The benchmark.

    Attributes:
        suffix: put behind every question, e.g. "\\nAnswer the question using a single word or phrase.", as lmms-eval
            and LLaVA do; nothing in the paper.
        parser: of yes and no, whose score comes first; the others of `yes_no.PARSERS` are counted as well.

    Raises:
        ValueError: an unknown parser.

    Example:
        >>> sample = Sample(id="random-1", image="1.jpg", question=pope_question("dog"), truth="no", part="random")
        >>> counted = POPE().count(sample, "I cannot see it. No.")
        >>> counted["official"].said, counted["words"].said
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
        return [sample for part in order for sample in self._split(found[part], part)]

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
        """What an answer says, and whether that is so, under every parser."""
        return {
            name: count_yes_no(PARSERS[name](answer, sample.truth), sample.truth, dropped=name == "lmms_eval")
            for name in (self.parser, *(other for other in PARSERS if other != self.parser))
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Accuracy, precision, recall and F1 of "yes" (0-1), share of yes among answers, number of unknown ones."""
        return yes_no_metrics(sums)


def count_yes_no(said: Said, label: str, *, positive: str = "yes", dropped: bool = False) -> Counted:
    """What one answer to a yes-or-no question contributes.

    Args:
        said: what the parser made of it.
        label: yes or no.
        positive: the class that precision and recall are about.
        dropped: whether recall leaves unknown answers out, as lmms-eval's does; otherwise they count as misses.
    """
    hit, wanted = said == positive, label == positive
    return Counted(
        numbers={
            "answers": 1,
            "right": int(said == label),
            "yes": int(said == "yes"),
            "unknown": int(said == "unknown"),
            "true_positives": int(hit and wanted),
            "false_positives": int(hit and not wanted),
            "false_negatives": int(wanted and not hit and not (dropped and said == "unknown")),
        },
        correct=said == label,
        said=said,
    )


def yes_no_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics from sums of `count_yes_no`; nan where nothing was counted."""
    answers, hits = (np.asarray(sums[name], float) for name in ("answers", "true_positives"))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = hits / (hits + sums["false_positives"])
        recall = hits / (hits + sums["false_negatives"])
        return {
            "accuracy": sums["right"] / answers,
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "yes_percent": 100 * np.asarray(sums["yes"]) / answers,
            "unknown": np.asarray(sums["unknown"], float),
        }


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
    said = [PARSERS[parser](answer, label) for answer, label in zip(answers, labels, strict=True)]
    dropped = parser == "lmms_eval"
    counted = [count_yes_no(one, label, dropped=dropped) for one, label in zip(said, labels, strict=True)]
    sums = {name: np.array(sum(one.numbers[name] for one in counted)) for name in counted[0].numbers}
    metrics = yes_no_metrics(sums)
    pairs = Counter(zip(said, labels, strict=True))
    return {
        "TP": pairs["yes", "yes"],
        "FP": pairs["yes", "no"],
        "TN": pairs["no", "no"],
        "FN": pairs["no", "yes"],
        **{name: float(metrics[name]) for name in ("accuracy", "precision", "recall", "f1")},
        "yes_ratio": (list(labels) if dropped else said).count("yes") / len(said),
    }


def pope_question(name: str, *, imange: bool = False) -> str:
    """The question about an object.

    Args:
        name: of the object.
        imange: misspell "image" behind a vowel as the authors' code does, which replaces every "a" of its template.

    Example:
        >>> pope_question("dog"), pope_question("apple", imange=True)
        ('Is there a dog in the image?', 'Is there an apple in the imange?')
    """
    if name[:1].lower() not in tuple("aeiou"):
        return f"Is there a {name} in the image?"
    return f"Is there an {name} in the {'imange' if imange else 'image'}?"


def build_pope(
    instances: Path, seed: int, *, images: int = 500, pairs: int = 3, imange: bool = False
) -> dict[str, list[dict[str, str | int]]]:
    """The three splits for annotated images of your own.

    Images with at least `pairs` annotated classes are drawn. The first classes of an image in the order of its
    annotations are asked about; behind each comes one that is neither annotated nor asked about yet. Popular takes the
    class that is in most images of the file, adversarial the one that shares most images with the class before it, or a
    random one if none does; equal classes are taken in the order in which the file names them first.

    Args:
        instances: a COCO instances file.
        seed: of the draw of images and of classes at random.
        images: how many.
        pairs: questions with yes an image, and with no.
        imange: as in `pope_question`.

    Returns:
        Split -> questions, in the fields of the published files.

    Raises:
        ValueError: as `read_instances`; too few images, or too few classes to ask about absent ones.
    """
    annotated = read_instances(instances)
    fitting = [image for image in annotated if len(image.objects) >= pairs]
    if pairs < 1 or images < 1 or len(fitting) < images:
        raise ValueError(
            f"{instances} has {len(fitting)} images with {pairs} or more classes, and {images} are wanted; "
            "ask for at least one and at most as many"
        )
    popularity = Counter(name for image in annotated for name in image.objects)
    company: dict[str, Counter[str]] = {name: Counter() for name in popularity}
    for image in annotated:
        for name in image.objects:
            company[name].update(other for other in image.objects if other != name)
    rng = random.Random(seed)
    drawn = rng.sample(fitting, images)
    splits: dict[str, list[dict[str, str | int]]] = {}
    order = {name: place for place, name in enumerate(popularity)}
    for split in POPE_SPLITS:
        questions: list[dict[str, str | int]] = []
        for image in drawn:
            used = set(image.objects)
            for present in image.objects[:pairs]:
                left = [name for name in popularity if name not in used]
                if not left:
                    raise ValueError(f"{image.file} has all classes but {pairs - 1} or fewer; annotate more classes")
                counts = {"random": Counter(), "popular": popularity, "adversarial": company[present]}[split]
                best = max(left, key=lambda name: (counts[name], -order[name]))
                absent = best if counts[best] else rng.choice(left)
                used.add(absent)
                for name, label in ((present, "yes"), (absent, "no")):
                    text = pope_question(name, imange=imange)
                    questions.append(
                        {"question_id": len(questions) + 1, "image": image.file, "text": text, "label": label}
                    )
        splits[split] = questions
    return splits


def write_pope(splits: Mapping[str, Sequence[Mapping[str, str | int]]], folder: Path) -> list[Path]:
    """Write the splits as `POPE.samples` reads them; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"pope_{split}.json" for split in splits]
    for path, questions in zip(paths, splits.values(), strict=True):
        path.write_text("".join(f"{json.dumps(question)}\n" for question in questions), encoding="utf-8")
    return paths
