"""AMBER: descriptions with annotated truths and traps, and yes-or-no questions on existence, attributes and relations.

Source: Wang et al. 2023, arXiv:2311.07397; junyangwang0410/AMBER@534babf, inference.py. The positive class of its
questions is *no*: precision and recall are about denying what is not there.

The questions count exactly as there. For descriptions the script finds nouns with NLTK's tagger and forgives a word
whose spaCy vector is close to a right one (similarity above 0.8); both need models. Without them every word of the
benchmark's vocabulary counts and only equal words are equal, so that `chair_percent` comes out higher. With
`spacy_model` that model tags, and compares as the script does; single nouns may still differ from NLTK's. For published
figures export the answers with `captioning.export_answers` and run the authors' script on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .amber_nouns import spacy_tools
from .contract import Counted, Sample
from .reading import field_of, read_json, read_json_lines, read_text
from .singular import fixed_singular
from .tokens import words
from .yes_no import PARSERS, Verdict, check_parser
from .yes_no_counts import count_yes_no, yes_no_metrics

__all__ = ["AMBER", "amber_rounded"]

#: Type of a question in the annotations -> its part; any other is a relation.
_PARTS = {
    "generative": "generative",
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
}
_EXPECTED = "the folder data of junyangwang0410/AMBER: annotations.json, relation.json, safe_words.txt and query/"
_DESCRIBED = ("captions", "inventing", "nouns", "invented", "truths", "covered", "traps", "trapped")


@dataclass(frozen=True, kw_only=True)
class AMBER:
    """The benchmark.

    Attributes:
        task: `all`, `generative` or `discriminative`.
        parser: of yes and no, whose score comes first. `amber` accepts only "Yes" and "No", as the authors do.
        spacy_model: finds the nouns of descriptions and compares words; the authors' is en_core_web_lg, smaller ones
            give other scores. Default: none.

    Raises:
        ValueError: an unknown task or parser.

    Example:
        >>> sample = Sample(id="1005", image="AMBER_1.jpg", question="Is there a dog?", truth="no", part="existence")
        >>> counted = AMBER().count(sample, "No.")
        >>> counted["amber"].correct, counted["words"].correct
        (False, True)
    """

    task: str = "all"
    parser: str = "amber"
    spacy_model: str = ""

    def __post_init__(self) -> None:
        if self.parser != "amber":
            check_parser(self.parser)
        if self.task not in ("all", "generative", "discriminative"):
            raise ValueError(f"AMBER has no task {self.task!r}; known: all, generative, discriminative")

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "amber"

    def samples(self, data: Path) -> list[Sample]:
        """Read the questions.

        Args:
            data: the folder `data` of the authors' repository.

        Raises:
            ValueError: a file is missing or damaged, an id is double, or a question has no annotation.
        """
        if not data.is_dir():
            raise ValueError(f"there is no folder {data}; expected {_EXPECTED}")
        suffix = "all" if self.task == "all" else self.task
        notes: dict[int, dict[str, Any]] = {}
        for number, row in enumerate(read_json_lines(data / "annotations.json"), 1):
            notes[field_of(row, "id", int, f"{data / 'annotations.json'}, entry {number}")] = row
        related = read_json(data / "relation.json") if self.task != "discriminative" else {}
        if not isinstance(related, dict) or not all(isinstance(value, list) for value in related.values()):
            raise ValueError(f"{data / 'relation.json'} must map words to lists of words")
        safe = read_text(data / "safe_words.txt").splitlines() if self.task != "discriminative" else []
        known = {str(word) for key, values in related.items() for word in (key, *values)}
        seen: set[int] = set()
        found: list[Sample] = []
        for number, row in enumerate(read_json_lines(data / "query" / f"query_{suffix}.json"), 1):
            where = f"{data / 'query' / f'query_{suffix}.json'}, entry {number}"
            key = field_of(row, "id", int, where)
            if key in seen or key not in notes:
                raise ValueError(f"{where}: the id {key} {'is there twice' if key in seen else 'has no annotation'}")
            seen.add(key)
            note, kind = notes[key], field_of(notes[key], "type", str, f"the annotation {key}")
            part = _PARTS.get(kind, "relation")
            if part == "generative":
                truth: Any = {
                    "truth": _lists(note, "truth", related, key),
                    "hallu": _lists(note, "hallu", related, key),
                    "safe": sorted({word for word in safe if word} & known),
                    "known": sorted(known),
                }
                if found and found[0].part == "generative":  # thousands of samples share these lists
                    truth |= {name: found[0].truth[name] for name in ("safe", "known")}
            else:
                truth = field_of(note, "truth", str, f"the annotation {key}").lower()
                if truth not in ("yes", "no"):
                    raise ValueError(f"the annotation {key} has the truth {truth!r}; it must be yes or no")
            image, question = (field_of(row, name, str, where) for name in ("image", "query"))
            found.append(Sample(id=str(key), image=image, question=question, truth=truth, part=part))
        return found

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """What an answer contributes; descriptions count alike under every parser.

        Raises:
            ValueError: spaCy or its model is not installed.
        """
        names = (self.parser, *(other for other in ("amber", *PARSERS) if other != self.parser))
        if sample.part == "generative":
            return dict.fromkeys(names, _count_description(sample.truth, answer, self.spacy_model))
        counted = {}
        for name in names:
            parsed = _exact(answer) if name == "amber" else PARSERS[name](answer, sample.truth)
            one = count_yes_no(parsed, sample.truth, positive="no")
            numbers = {**one.numbers, **dict.fromkeys(_DESCRIBED, 0.0)}
            counted[name] = Counted(numbers=numbers, correct=one.correct, parsed=parsed)
        return counted

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Accuracy, precision, recall and F1 of "no" (0-1), and the figures of descriptions.

        `chair_percent`: invented nouns; `cover_percent`: annotated objects that are named; `hal_percent`: descriptions
        that invent; `cog_percent`: annotated traps that are named. `amber_percent` is the mean of what `chair_percent`
        lacks to 100 and F1. nan where nothing was counted: the authors add 0.001 to denominators instead, and round
        (`amber_rounded`).
        """
        of = {name: np.asarray(value, float) for name, value in sums.items()}
        metrics = yes_no_metrics(of)
        with np.errstate(divide="ignore", invalid="ignore"):
            metrics |= {
                "chair_percent": 100 * of["invented"] / of["nouns"],
                "cover_percent": 100 * of["covered"] / of["truths"],
                "hal_percent": 100 * of["inventing"] / of["captions"],
                "cog_percent": 100 * of["trapped"] / of["traps"],
            }
        metrics["amber_percent"] = (100 - metrics["chair_percent"] + 100 * metrics["f1"]) / 2
        return {name: np.asarray(value) for name, value in metrics.items()}


def amber_rounded(sums: Mapping[str, float], part: str = "all") -> dict[str, float]:
    """Accuracy, precision, recall and F1 in percent as the authors' script prints them.

    Args:
        sums: numbers of answers to yes-or-no questions.
        part: what they are about; "existence" has another constant in F1.

    Example:
        >>> names = ("answers", "right", "true_positives", "false_positives", "false_negatives")
        >>> amber_rounded(dict(zip(names, (4.0, 3.0, 1.0, 0.0, 1.0))))
        {'accuracy': 75.0, 'precision': 99.9, 'recall': 50.0, 'f1': 66.6}
    """
    hits = sums["true_positives"]
    precision = round(hits / (hits + sums["false_positives"] + 0.001) * 100, 1)
    recall = round(hits / (hits + sums["false_negatives"] + 0.001) * 100, 1)
    more = 0.001 if part == "existence" else 0.0001
    return {
        "accuracy": round(sums["right"] / (sums["answers"] + 0.001) * 100, 1),
        "precision": precision,
        "recall": recall,
        "f1": round(2 * (precision / 100) * (recall / 100) / (precision / 100 + recall / 100 + more) * 100, 1),
    }


def _exact(answer: str) -> Verdict:
    return "yes" if answer == "Yes" else "no" if answer == "No" else "unknown"


def _lists(note: Mapping[str, Any], name: str, related: Mapping[str, Sequence[str]], key: int) -> list[list[str]]:
    """For each annotated word the word itself and those that stand for it."""
    words_here = field_of(note, name, list, f"the annotation {key}")
    missing = [word for word in words_here if word not in related]
    if missing:
        raise ValueError(f"the annotation {key} has {missing[0]!r}, which relation.json does not; {_EXPECTED}")
    return [[word, *related[word]] for word in words_here]


def _owners(lists: Sequence[Sequence[str]]) -> dict[str, int]:
    """Word -> which annotated word it stands for; a relation goes before the word itself, as in the script."""
    owners: dict[str, int] = {}
    for index, (_, *others) in enumerate(lists):
        for word in others:
            owners.setdefault(word, index)
    for index, (word, *_) in enumerate(lists):
        owners.setdefault(word, index)
    return owners


def _count_description(truth: Mapping[str, Any], answer: str, spacy_model: str) -> Counted:
    known, safe = set(truth["known"]), set(truth["safe"])
    right, traps = _owners(truth["truth"]), _owners(truth["hallu"])
    alike: Callable[[str, str], bool] = str.__eq__
    if spacy_model:
        nouns_of, alike = spacy_tools(spacy_model)
        nouns = nouns_of(answer)
    else:
        tokens = words(answer.lower())
        nouns = [one if one in known else other for one, other in ((word, fixed_singular(word)) for word in tokens)]
    nouns = [noun for noun in nouns if noun in known]
    mentioned = [noun for noun in nouns if noun not in safe]
    covered = {right[noun] for noun in mentioned if noun in right}
    trapped: set[int] = set()
    invented = []
    for noun in (noun for noun in mentioned if noun not in right):
        # As in the script, a trap is named whether or not the noun turns out to be like a right one.
        trapped |= {traps[noun]} if noun in traps else set()
        trapped |= {index for _, index in _first_alike(noun, traps, alike)}
        forgiven = {index for _, index in _first_alike(noun, right, alike)}
        covered |= forgiven
        if not forgiven:
            invented.append(noun)
    numbers = {
        "captions": 1,
        "inventing": bool(invented),
        "nouns": len(nouns),
        "invented": len(invented),
        "truths": len(truth["truth"]),
        "covered": len(covered),
        "traps": len(truth["hallu"]),
        "trapped": len(trapped),
    }
    asked = dict.fromkeys(count_yes_no("unknown", "yes").numbers, 0.0)
    return Counted(
        numbers=asked | {name: float(number) for name, number in numbers.items()},
        correct=not invented,
        parsed=tuple(nouns),
        invented=tuple(invented),
        true=tuple(words_of[0] for words_of in truth["truth"]),
    )


def _first_alike(noun: str, owners: Mapping[str, int], alike: Callable[[str, str], bool]) -> list[tuple[str, int]]:
    return next(([(word, index)] for word, index in owners.items() if alike(noun, word)), [])
