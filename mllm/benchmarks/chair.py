"""CHAIR: how many of the objects that a caption names are not in the image.

Source: Rohrbach et al. 2018, arXiv:1809.02156; recall and the numbers of the golden files as in
Maxlinn/CHAIR-metric-standalone@640c507; precision, F1 and length as in the scripts of OPERA (arXiv:2311.17911) and PAI
(arXiv:2407.21771). Objects of an image are those that are annotated in it and those that its reference captions name.

Shorter captions invent less, and papers use different images, prompts and length limits: report recall, F1 and words
with CHAIR, and the list of images and the prompt with every result.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .chair_captions import Reading, read_caption
from .chair_words import MODES, vocabulary
from .coco import CocoImage, read_captions, read_instances
from .contract import Counted, Sample
from .reading import files_in, read_text

__all__ = ["CHAIR", "count_caption", "objects_of_image"]

_EXPECTED = "the annotations of COCO 2014: instances_val2014.json and captions_val2014.json (and those of train)"


@dataclass(frozen=True, kw_only=True)
class CHAIR:
    """The benchmark.

    Attributes:
        images: number of randomly selected images, of the val split if there is one; 0 for all.
        seed: of the selection.
        image_list: file with image ids, one per line, instead of a random selection.
        prompt: the question. The default is PAI's; VHR, OPERA and lmms-eval ask "Please describe this image in detail."
        mode: `official` or `fixed`, the first score; the other mode is scored too.
        synonyms: file in the format of the authors' synonyms.txt, instead of our table.

    Raises:
        ValueError: an unknown mode, or less than no image.

    Example:
        >>> truth = {"official": ["dog"], "fixed": ["dog"]}
        >>> sample = Sample(id="1", image="1.jpg", question="Describe it.", truth=truth)
        >>> CHAIR().count(sample, "A puppy chases a cat.")["official"].invented
        ('cat',)
    """

    images: int = 500
    seed: int = 0
    image_list: str = ""
    prompt: str = "Please help me describe the image in detail."
    mode: str = "official"
    synonyms: str = ""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"there is no mode {self.mode!r} of CHAIR; known: {', '.join(MODES)}")
        if self.images < 0:
            raise ValueError(f"images is {self.images}; give how many to draw, or 0 for all")

    @property
    def name(self) -> str:
        """As the table of benchmarks has it."""
        return "chair"

    def samples(self, data: Path) -> list[Sample]:
        """Draw images and read what is in them.

        Args:
            data: folder of the annotations, or one that has them in `annotations`.

        Raises:
            ValueError: instances or captions are missing or damaged, a class is none of COCO's 80, or fewer images
                than requested.
        """
        folder = data / "annotations" if (data / "annotations").is_dir() else data
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; expected {_EXPECTED}")
        known: dict[int, CocoImage] = {}
        drawable: list[int] = []
        instances = files_in(folder, ("instances_*.json",), _EXPECTED)
        captions = files_in(folder, ("captions_*.json",), _EXPECTED)
        of_val = any("val" in path.name for path in instances)
        for path in instances:
            for image in read_instances(path):
                if image.id in known:
                    raise ValueError(f"{path} has the image {image.id}, which another instances file has as well")
                known[image.id] = image
                if "val" in path.name or not of_val:
                    drawable.append(image.id)
        chosen = self._chosen(known, drawable)
        references: dict[int, list[str]] = {}
        for path in captions:
            for key, texts in read_captions(path, set(chosen)).items():
                references.setdefault(key, []).extend(texts)
        missing = [key for key in chosen if key not in references]
        if missing:
            raise ValueError(f"no captions of {len(missing)} images, e.g. {missing[0]}; expected {_EXPECTED}")
        return [
            Sample(
                id=str(key),
                image=known[key].file,
                question=self.prompt,
                truth={
                    mode: objects_of_image(known[key].objects, references[key], mode, self.synonyms) for mode in MODES
                },
            )
            for key in chosen
        ]

    def _chosen(self, known: Mapping[int, CocoImage], drawable: Sequence[int]) -> list[int]:
        if self.image_list:
            path = Path(self.image_list)
            chosen: dict[int, None] = {}
            for number, line in enumerate(read_text(path).splitlines(), 1):
                word = line.strip()
                if not word:
                    continue
                if not (word.isascii() and word.isdigit() and int(word[:18]) in known):
                    raise ValueError(f"{path}, line {number}: {word[:40]!r} is not the id of an annotated image")
                if int(word) in chosen:
                    raise ValueError(f"{path}, line {number}: the image {word} is there twice")
                chosen[int(word)] = None
            return list(chosen)
        if self.images > len(drawable):
            raise ValueError(f"{self.images} images requested, {len(drawable)} annotated; request fewer")
        return sorted(random.Random(self.seed).sample(drawable, self.images)) if self.images else sorted(drawable)

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        """What a caption names, in both modes."""
        return {
            mode: count_caption(read_caption(answer, mode, self.synonyms), sample.truth[mode])
            for mode in (self.mode, *(other for other in MODES if other != self.mode))
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Metrics of captions.

        `chair_s`: captions that invent, of all. `chair_i`: invented mentions, of all. `recall`: objects of the images
        that are named; `precision`: different named objects that are there; `f1` of both. All 0-1. `words` a caption.
        """
        of = {name: np.asarray(value, float) for name, value in sums.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            recall, precision = of["found"] / of["objects"], of["found"] / of["named"]
            metrics = {
                "chair_s": of["inventing"] / of["captions"],
                "chair_i": of["invented_mentions"] / of["mentions"],
                "recall": recall,
                "precision": precision,
                "f1": 2 * recall * precision / (recall + precision),
                "words": of["words"] / of["captions"],
            }
        return {name: np.asarray(value) for name, value in metrics.items()}


def objects_of_image(
    annotated: Sequence[str], captions: Sequence[str], mode: str = "official", synonyms: str = ""
) -> list[str]:
    """The objects of an image: those annotated, and those that reference captions name; sorted.

    Args:
        annotated: names of COCO's classes.
        captions: reference captions of the image.
        mode: of reading captions.
        synonyms: as in `vocabulary`.

    Raises:
        ValueError: a name is not a class of COCO.
    """
    classes = vocabulary(mode, synonyms).classes
    for name in annotated:
        if name not in classes:
            raise ValueError(f"{name!r} is not one of the 80 classes of COCO")
    named = {mention.name for text in captions for mention in read_caption(text, mode, synonyms).mentions}
    return sorted({classes[name] for name in annotated} | named)


def count_caption(reading: Reading, objects: Sequence[str]) -> Counted:
    """What a caption contributes.

    Args:
        reading: the caption, read.
        objects: classes that are in the image.
    """
    names = [mention.name for mention in reading.mentions]
    there = set(objects)
    invented = [name for name in names if name not in there]
    return Counted(
        numbers={
            "captions": 1.0,
            "inventing": float(bool(invented)),
            "mentions": float(len(names)),
            "invented_mentions": float(len(invented)),
            "named": float(len(set(names))),
            "found": float(len(set(names) & there)),
            "objects": float(len(there)),
            "words": float(len(reading.words)),
        },
        correct=not invented,
        parsed=tuple(names),
        invented=tuple(invented),
        true=tuple(sorted(there)),
    )
