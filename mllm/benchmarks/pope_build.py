"""POPE for your own images: the three splits from a COCO-style annotation file.

Source: Li et al. 2023, arXiv:2305.10355, section 5; AoiDragon/POPE@08d957b.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .coco import read_instances
from .pope import POPE_SPLITS

__all__ = ["build_pope", "pope_question", "write_pope"]


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
    """The three splits for your own annotated images.

    Images with at least `pairs` annotated classes are drawn. The first classes of an image in the order of its
    annotations are asked about; behind each comes one that is neither annotated nor asked about yet. Popular takes the
    class that is in most of the images drawn, adversarial the one that shares most of them with the class before it, or
    a random one if none does; equal classes are taken in the order in which these images name them first. Classes that
    no drawn image has are not asked about: the published frequencies are of the 500 images, too.

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
    rng = random.Random(seed)
    drawn = rng.sample(fitting, images)
    popularity = Counter(name for image in drawn for name in image.objects)
    company: dict[str, Counter[str]] = {name: Counter() for name in popularity}
    for image in drawn:
        for name in image.objects:
            company[name].update(other for other in image.objects if other != name)
    splits: dict[str, list[dict[str, str | int]]] = {}
    for split in POPE_SPLITS:
        questions: list[dict[str, str | int]] = []
        for image in drawn:
            used = set(image.objects)
            for present in image.objects[:pairs]:
                likely = {"random": Counter(), "popular": popularity, "adversarial": company[present]}[split]
                absent = next((name for name, _ in likely.most_common() if name not in used), None)
                if absent is None:
                    left = [name for name in popularity if name not in used]
                    if not left:
                        raise ValueError(
                            f"{instances} has too few classes: {image.file} has nearly all of those of the {images} "
                            "images drawn; draw more"
                        )
                    absent = rng.choice(left)
                used.add(absent)
                for name, label in ((present, "yes"), (absent, "no")):
                    text = pope_question(name, imange=imange)
                    key = len(questions) + 1
                    questions.append({"question_id": key, "image": image.file, "text": text, "label": label})
        splits[split] = questions
    return splits


def write_pope(splits: Mapping[str, Sequence[Mapping[str, str | int]]], folder: Path) -> list[Path]:
    """Write the splits as `POPE.samples` reads them; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"pope_{split}.json" for split in splits]
    for path, questions in zip(paths, splits.values(), strict=True):
        path.write_text("".join(f"{json.dumps(question)}\n" for question in questions), encoding="utf-8")
    return paths
