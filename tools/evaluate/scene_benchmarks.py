"""The embedded benchmarks: captions of rendered scenes and questions about them, whose truth is known.

They are made to look like CHAIR (Rohrbach et al. 2018, arXiv:1809.02156) and POPE (Li et al. 2023, arXiv:2305.10355),
and are about the embedded model alone: scores of other models on these images mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
from PIL import Image

from ...datasets.scene_captions import CAPTION_PROMPTS, named_objects, probing_questions
from ...datasets.scenes import CLASSES, Scenes
from ...mllm.benchmarks import Counted, Sample
from ...mllm.benchmarks.yes_no import PARSERS
from ...mllm.benchmarks.yes_no_counts import count_yes_no, yes_no_metrics

__all__ = ["SCENE_BENCHMARKS", "SceneCaptions", "SceneQuestions"]

_Kind = Literal["random", "popular", "adversarial"]


@dataclass(frozen=True, kw_only=True)
class SceneCaptions:
    """Captions of scenes of the split "natural".

    Attributes:
        scenes: how many, at least 1.
        seed: of the scenes; 0 is what the embedded model's own figures are about.

    Example:
        >>> SceneCaptions(scenes=2).samples(Path())[1].truth
        ['dog', 'frisbee', 'sheep', 'horse', 'book']
    """

    name: ClassVar[str] = "scene_captions"
    scenes: int = 300
    seed: int = 1

    def samples(self, data: Path) -> list[Sample]:
        """One sample a scene; `data` is not used."""
        scenes = Scenes("natural", self.scenes, self.seed)
        return [
            Sample(id=str(index), image=str(index), question=CAPTION_PROMPTS[0], truth=list(scene.names))
            for index, scene in enumerate(scenes)
        ]

    def open_image(self, sample: Sample) -> Image.Image:
        """The scene."""
        return Scenes("natural", self.scenes, self.seed)[int(sample.image)].image()

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """Mentions, those of what is not there, and what is there and named."""
        named = named_objects(answer)
        wrong = [name for name in named if name not in sample.truth]
        numbers = {
            "captions": 1.0,
            "wrong_captions": float(bool(wrong)),
            "mentions": float(len(named)),
            "wrong_mentions": float(len(wrong)),
            "found": float(len(set(named) & set(sample.truth))),
            "present": float(len(sample.truth)),
            "words": float(len(answer.split())),
        }
        return {"scenes": Counted(numbers=numbers, parsed=named, invented=wrong, true=sample.truth)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """CHAIR by sentence and by mention, recall and length."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "chair_s_percent": 100 * sums["wrong_captions"] / sums["captions"],
                "chair_i_percent": 100 * sums["wrong_mentions"] / sums["mentions"],
                "recall_percent": 100 * sums["found"] / sums["present"],
                "words": sums["words"] / sums["captions"],
            }


@dataclass(frozen=True, kw_only=True)
class SceneQuestions:
    """Yes and no: three questions about what is there and three about what is not, in three splits.

    Attributes:
        scenes: how many, at least 1; 18 questions about each.
        seed: of scenes and questions.

    Example:
        >>> len(SceneQuestions(scenes=2).samples(Path()))
        36
    """

    name: ClassVar[str] = "scene_questions"
    scenes: int = 100
    seed: int = 1

    def samples(self, data: Path) -> list[Sample]:
        """The questions of all splits; `data` is not used."""
        samples = []
        for number, kind in enumerate(get_args(_Kind)):
            for position, scene in enumerate(Scenes("natural", self.scenes, self.seed)):
                rng = np.random.default_rng([self.seed, 20 + number, position])
                samples += [
                    Sample(
                        id=f"{kind}-{position}-{index}",
                        image=str(position),
                        question=question.text,
                        truth="yes" if question.truth else "no",
                        part=kind,
                        present=tuple(scene.names),
                    )
                    for index, question in enumerate(probing_questions(scene, rng, kind))
                ]
        return samples

    def open_image(self, sample: Sample) -> Image.Image:
        """The scene."""
        return Scenes("natural", self.scenes, self.seed)[int(sample.image)].image()

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """The parsed answer, and whether it is right, under every parser; a wrong yes invents what was asked about."""
        counted = {}
        for name in ("words", *(other for other in PARSERS if other != "words")):
            parsed = PARSERS[name](answer, sample.truth)
            wrong_yes = parsed == "yes" and sample.truth == "no"
            one = count_yes_no(parsed, sample.truth)
            counted[name] = replace(one, invented=(_asked_about(sample.question),)) if wrong_yes else one
        return counted

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Those of POPE, with F1 in front."""
        metrics = yes_no_metrics(sums)
        return {"f1": metrics["f1"], **metrics}


def _asked_about(question: str) -> str:
    return max((name for name in CLASSES if f" {name} " in f"{question} "), key=len)


#: Name -> benchmark of rendered scenes.
SCENE_BENCHMARKS: dict[str, type[SceneCaptions] | type[SceneQuestions]] = {
    "scene_captions": SceneCaptions,
    "scene_questions": SceneQuestions,
}
