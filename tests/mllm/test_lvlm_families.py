"""The wrapper with the processors of many families: batches, images here and there, scores, grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_lvlms import by_kind, tiny_lvlm
from tiny_processors import FAMILIES, tiny_processor

from regard.mllm import LVLM, PAI

QUESTIONS = ["a dog ?", "what is red ?"]  # short, since some layers see no further than eight tokens
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # in a processor of transformers

#: Rows and columns of image tokens for photos of 60 x 40 and 30 x 64 px.
SQUARE, LONG = [[(2, 2)], [(2, 2)]], [[(1, 2)], [(2, 1)]]
GRIDS = {
    **dict.fromkeys(("llava", "paligemma", "gemma3", "idefics3"), SQUARE),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), LONG),
    "mistral3": [[(2, 2)], [(2, 1)]],
}
NO_GRIDS = {
    **dict.fromkeys(("llava_next", "llava_onevision", "internvl"), "overlapping tiles"),
    "instructblip": "queries, which have no position in the image",
}


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in ((40, 60, 3), (64, 30, 3))]


@pytest.fixture(params=by_kind(FAMILIES, ("llava", "llava_next", "qwen2_vl", "instructblip")))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lvlm(family: str) -> LVLM:
    processor = tiny_processor(family)
    processor.tokenizer.padding_side = "left"
    return LVLM(tiny_lvlm(family).model, processor)


def test_answers_and_scores_do_not_depend_on_the_batch(lvlm: LVLM) -> None:
    images, words = photos(), ["yes", "no", "red dog"]
    intervention = PAI(alpha=0.5, gamma=1.0, layers="all")
    together = lvlm.answer(images, QUESTIONS, max_new_tokens=3, interventions=intervention)
    scores = lvlm.score(images, QUESTIONS, words, interventions=intervention)
    assert (scores - lvlm.score(images, QUESTIONS, words)).abs().max() > 1e-3
    for index in range(2):
        image, question = images[index : index + 1], QUESTIONS[index : index + 1]
        assert (
            lvlm.answer(image, question, max_new_tokens=3, interventions=intervention)[0].text == together[index].text
        )
        alone = lvlm.score(image, question, words[::-1], interventions=intervention)[0].flip(0)
        torch.testing.assert_close(alone, scores[index], atol=1e-4, rtol=1e-4)


def test_samples_may_have_no_image_or_several(family: str, lvlm: LVLM) -> None:
    first, second = photos()
    if family == "instructblip":
        with pytest.raises(ValueError, match="accepts exactly one image with a prompt"):
            lvlm.prepare([None], QUESTIONS[:1])
        return
    mixed = lvlm.answer([None, second, [first, second]], [QUESTIONS[0]] * 3, max_new_tokens=3)
    turned = lvlm.answer([[first, second], None], [QUESTIONS[0]] * 2, max_new_tokens=3)
    assert [answer.text for answer in turned] == [mixed[2].text, mixed[0].text]


def test_the_grid_of_an_image_is_told_or_why_there_is_none(family: str, lvlm: LVLM) -> None:
    inputs = lvlm.prepare(photos(), QUESTIONS)
    if family in NO_GRIDS:
        with pytest.raises(ValueError, match=NO_GRIDS[family]):
            lvlm.image_grid(inputs)
        return
    assert lvlm.image_grid(inputs) == GRIDS[family]
    watched = lvlm.answer(photos(), QUESTIONS, max_new_tokens=2, watch=True)
    assert [[tuple(view.shape[1:]) for view in answer.attention or ()] for answer in watched] == GRIDS[family]
