"""HallusionBench: the same question about a figure and about altered ones, and the same figure for several questions.

Source: Guan et al. 2024, arXiv:2310.14566; tianyi-lab/HallusionBench, evaluation.py. The authors let GPT-4 judge
answers in free text; here answers are parsed for yes and no, as VLMEvalKit does. Figures are counted as the authors do,
without those of the visual supplement that show nothing; VLMEvalKit counts these as well. Where nothing is shown it is
right not to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .contract import Counted, Sample
from .reading import field_of, files_in, read_json_lines
from .yes_no import PARSERS, check_parser

__all__ = ["HallusionBench"]

_KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")


@dataclass(frozen=True, kw_only=True)
class HallusionBench:
    """The benchmark.

    Attributes:
        parser: of yes and no, whose score comes first.

    Raises:
        ValueError: an unknown parser.

    Example:
        >>> sample = Sample(id="1", image="1.png", question="Is the left circle larger?", truth="no", part="VD")
        >>> HallusionBench().count(sample, "No, they are equal.")["vlmevalkit"].correct
        True
    """

    parser: str = "vlmevalkit"

    def __post_init__(self) -> None:
        check_parser(self.parser)

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "hallusionbench"

    def samples(self, data: Path) -> list[Sample]:
        """Read the questions; some of the visual supplement (VS) have no figure, and an empty `image`.

        Args:
            data: HallusionBench.json, or the folder that has it.

        Raises:
            ValueError: no such file, a damaged one, or a double question.
        """
        path = files_in(data, ("HallusionBench.json",), "HallusionBench.json of tianyi-lab/HallusionBench")[0]
        seen, found = set(), []
        for number, row in enumerate(read_json_lines(path), 1):
            where = f"{path}, question {number}"
            key = tuple(str(field_of(row, name, (str, int), where)) for name in _KEYS)
            category, subcategory, series, figure, question = key
            if key in seen:
                raise ValueError(f"{where} is there twice: {', '.join(key)}")
            seen.add(key)
            label = str(field_of(row, "gt_answer", (str, int), where))
            if label not in ("0", "1") or category not in ("VD", "VS"):
                raise ValueError(f"{where} has the label {label!r} and the category {category!r}; known: 0, 1; VD, VS")
            without = category == "VS" and figure == "0"
            drawn = row.get("filename") if str(row.get("visual_input", "1")) != "0" else None
            groups = {"question": "/".join((category, subcategory, series, question))}
            if not without:
                groups["figure"] = "/".join((category, subcategory, series, figure))
            found.append(
                Sample(
                    id="-".join(key),
                    image=drawn.removeprefix("./") if isinstance(drawn, str) else "",
                    question=field_of(row, "question", str, where),
                    truth="yes" if label == "1" else "no",
                    part=category,
                    groups=groups,
                )
            )
        return found

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """The parsed answer and whether it is correct, under every parser."""
        counted = {}
        for name in (self.parser, *(other for other in PARSERS if other != self.parser)):
            parsed = PARSERS[name](answer, sample.truth)
            right = parsed == sample.truth or (parsed == "unknown" and not sample.image and sample.part == "VS")
            flags = {"right": right, "yes": parsed == "yes", "unknown": parsed == "unknown"}
            numbers = {"answers": 1.0, **{key: float(flag) for key, flag in flags.items()}}
            counted[name] = Counted(numbers=numbers, correct=right, parsed=parsed)
        return counted

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Shares of right answers (`a_acc`), of figures and of questions with right answers only, all 0-1.

        The last two need the numbers of groups (`regard.mllm.evaluation.aggregate`). Figures omit questions
        without one.
        """
        of = {name: np.asarray(value, float) for name, value in sums.items()}
        nothing = np.zeros_like(of["answers"])
        with np.errstate(divide="ignore", invalid="ignore"):
            metrics = {
                "a_acc": of["right"] / of["answers"],
                "f_acc": of.get("figure_groups_right", nothing) / of.get("figure_groups", nothing),
                "q_acc": of.get("question_groups_right", nothing) / of.get("question_groups", nothing),
                "yes_percent": 100 * of["yes"] / of["answers"],
                "unknown": of["unknown"],
            }
        return {name: np.asarray(value) for name, value in metrics.items()}
