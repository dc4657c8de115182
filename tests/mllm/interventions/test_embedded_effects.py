"""The one test of effects: what interventions do to the captions of the embedded model, where two trainings agreed.

It is about this model, whose habit was planted, and nothing else. Intervals are of paired resamples of 300 scenes.
"""

from __future__ import annotations

import numpy as np
import pytest

from regard.datasets.scene_captions import named_objects
from regard.datasets.scenes import Scene, Scenes
from regard.mllm import LVLM, PAI, VDD, ImageScale
from regard.mllm.session.contract import Intervention

SCENES = 300


def counts(lvlm: LVLM, scenes: list[Scene], *interventions: Intervention) -> np.ndarray:
    """For each scene, whether its caption names something absent, and the share of its things that are named."""
    images = [scene.image() for scene in scenes]
    answers = lvlm.answer(
        images,
        ["describe the image in detail ."] * len(scenes),
        interventions=interventions,
        max_new_tokens=60,
        batch_size=100,
    )
    named = [set(named_objects(answer.text)) for answer in answers]
    pairs = list(zip(scenes, named, strict=True))
    wrong = [bool(named - set(scene.names)) for scene, named in pairs]
    return np.array([wrong, [len(named & set(scene.names)) / len(scene.names) for scene, named in pairs]], float)


def interval(difference: np.ndarray) -> tuple[float, float]:
    draws = np.random.default_rng(0).integers(len(difference), size=(2000, len(difference)))
    low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@pytest.fixture(scope="module")
def base() -> tuple[LVLM, list[Scene], np.ndarray]:
    lvlm, scenes = LVLM.load("embedded", device="cpu"), list(Scenes("natural", SCENES, seed=1))
    return lvlm, scenes, counts(lvlm, scenes)


@pytest.mark.parametrize(
    "intervention",
    [VDD(alpha=0.5), PAI(alpha=0.2, gamma=1.0, layers="all"), ImageScale(factor=2.0)],
    ids=lambda intervention: intervention.name,
)
def test_less_is_invented_and_no_less_is_named(
    base: tuple[LVLM, list[Scene], np.ndarray], intervention: Intervention
) -> None:
    lvlm, scenes, before = base
    after = counts(lvlm, scenes, intervention)
    assert interval(after[0] - before[0])[1] < 0
    assert interval(after[1] - before[1])[1] > 0  # recall is not lower
    assert (after[1] - before[1]).mean() > -0.01


def test_looking_less_at_the_image_invents_more(base: tuple[LVLM, list[Scene], np.ndarray]) -> None:
    lvlm, scenes, before = base
    after = counts(lvlm, scenes, ImageScale(factor=0.5))
    assert interval(after[0] - before[0])[0] > 0
