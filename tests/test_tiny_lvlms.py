"""The tiny LVLMs keep what other tests build upon."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from tiny_lvlms import FAMILIES, IMAGE, NO_IMAGES, ONE_IMAGE_A_SAMPLE, SINK, TinyLVLM, by_kind, plant_sinks, tiny_lvlm
from torch import Tensor

TEXTS = [[5, 6, IMAGE, 9, 8], [3, 4, 5, 6, SINK, IMAGE, 10, 20, 30, 40]]
TWO = [[5, IMAGE, 9, 6, IMAGE, 9, 8], [3, IMAGE, 5, 7, 11]]
READING = [name for name in FAMILIES if name not in NO_IMAGES]
SEVERAL = [name for name in READING if name not in ONE_IMAGE_A_SAMPLE]

every = pytest.mark.parametrize("family", by_kind(FAMILIES))
reading = pytest.mark.parametrize("family", by_kind(READING))
several = pytest.mark.parametrize("family", by_kind(SEVERAL))


# hybrid layers work through a padded prompt in other chunks; before their first image, mllama's words see a sample's
# empty image slots too
TOLERANCE = {"qwen3_5": 1e-4, "mllama": 0.1}


@functools.cache
def built(family: str) -> TinyLVLM:
    return tiny_lvlm(family)


def given(family: str, texts: list[list[int]] = TEXTS, images: list[int] | None = None) -> dict[str, Tensor]:
    if family in NO_IMAGES:
        texts, images = [[token for token in text if token != IMAGE] for text in texts], None
    return built(family).inputs(texts, images)


@torch.no_grad()
def last_logits(family: str, inputs: dict[str, Tensor]) -> Tensor:
    """Of the next word; positions are counted from the first real token, as `generate` does."""
    return (
        built(family)
        .model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True, output_logits=True)
        .logits[0]
    )


def answers(family: str, inputs: dict[str, Tensor], **settings: Any) -> Tensor:
    output = built(family).model.generate(**inputs, max_new_tokens=4, **settings)
    return output[:, inputs["input_ids"].shape[1] :]


@every
def test_a_model_depends_on_its_seed_alone(family: str) -> None:
    torch.manual_seed(5)
    again, other = tiny_lvlm(family).model.state_dict(), tiny_lvlm(family, seed=1).model.state_dict()
    torch.testing.assert_close(dict(again), dict(built(family).model.state_dict()), rtol=0, atol=0)
    assert any(not torch.equal(again[name], other[name]) for name in again)


@every
def test_eager_and_sdpa_agree(family: str) -> None:
    tiny, inputs = tiny_lvlm(family), given(family)
    with torch.no_grad():
        sdpa = tiny.model(**inputs).logits
        tiny.model.set_attn_implementation("eager")
        eager = tiny.model(**inputs).logits
    valid = inputs["attention_mask"].bool()
    torch.testing.assert_close(eager[valid], sdpa[valid], rtol=0, atol=1e-4)


@several
def test_a_batch_padded_on_the_left_equals_its_samples(family: str) -> None:
    batch = last_logits(family, given(family, TWO, [7, 8, 9]))
    singles = [last_logits(family, given(family, TWO[:1], [7, 8])), last_logits(family, given(family, TWO[1:], [9]))]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=0, atol=TOLERANCE.get(family, 1e-5))


@every
def test_one_image_each_equals_its_samples_too(family: str) -> None:
    batch = last_logits(family, given(family, TEXTS, [7, 8]))
    singles = [last_logits(family, given(family, [text], [seed])) for text, seed in zip(TEXTS, [7, 8], strict=True)]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=0, atol=1e-5)


@reading
def test_each_sample_reads_its_own_image(family: str) -> None:
    base = last_logits(family, given(family, TEXTS, [7, 8]))
    other = last_logits(family, given(family, TEXTS, [7, 9]))
    torch.testing.assert_close(base[0], other[0], rtol=0, atol=1e-5)
    assert (base[1] - other[1]).abs().max() > 0.05


@several
def test_both_images_of_a_sample_are_read(family: str) -> None:
    base = last_logits(family, given(family, TWO, [7, 8, 9]))[0]
    for images in ([1, 8, 9], [7, 1, 9]):
        assert (last_logits(family, given(family, TWO, images))[0] - base).abs().max() > 1e-3


@pytest.mark.parametrize("family", by_kind(name for name in FAMILIES if name not in ONE_IMAGE_A_SAMPLE))
def test_text_alone_is_answered_too(family: str) -> None:
    texts = [[5, 6, 9, 8], [3, 4, 5, 6, 10, 20, 30, 40]]
    inputs = built(family).inputs(texts)
    assert "pixel_values" not in inputs
    singles = [last_logits(family, built(family).inputs([text])) for text in texts]
    torch.testing.assert_close(last_logits(family, inputs), torch.cat(singles), rtol=0, atol=1e-5)


@every
def test_a_static_cache_gives_the_same_words(family: str) -> None:
    inputs = given(family)
    words = answers(family, inputs)
    assert words.shape == (2, 4)
    static = answers(family, inputs, cache_implementation="static", disable_compile=True)
    torch.testing.assert_close(static, words)


@every
def test_beams_of_a_batch_equal_those_of_its_samples(family: str) -> None:
    batch = answers(family, given(family, TEXTS, [7, 8]), num_beams=3)
    for row, (text, seed) in enumerate(zip(TEXTS, [7, 8], strict=True)):
        torch.testing.assert_close(answers(family, given(family, [text], [seed]), num_beams=3)[0], batch[row])


@every
@pytest.mark.parametrize("beams", [1, 3])
def test_planted_sinks_change_a_batch_as_its_samples(family: str, beams: int) -> None:
    tiny, inputs = built(family), given(family, TEXTS, [7, 8])
    settings = {"num_beams": beams, "return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 3}
    plain = tiny.model.generate(**inputs, **settings)
    with plant_sinks(tiny):
        batch = tiny.model.generate(**inputs, **settings)
        single = tiny.model.generate(**given(family, TEXTS[1:], [8]), **settings)
    for step in range(3):
        torch.testing.assert_close(batch.scores[step][beams:], single.scores[step], rtol=0, atol=2e-5)
    assert not torch.allclose(batch.scores[0][beams:], plain.scores[0][beams:], rtol=0, atol=1e-3)
    unhooked = tiny.model.generate(**inputs, **settings)
    torch.testing.assert_close(unhooked.scores[2], plain.scores[2], rtol=0, atol=0)


@every
def test_planted_tokens_and_no_others_are_massive_from_the_third_layer_on(family: str) -> None:
    tiny = tiny_lvlm(family, hidden=512)
    inputs = tiny.inputs([[t for t in text if t != IMAGE or tiny.image_tokens] for text in TEXTS])
    rows, seen = inputs["input_ids"], []

    def phi(_: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        peaks = args[0].abs().amax(dim=-1) / args[0].square().mean(dim=-1).sqrt()
        seen.append(peaks > 20)

    hooks = [layer.register_forward_pre_hook(phi) for layer in tiny.text_stack.layers]
    with plant_sinks(tiny), torch.no_grad():
        tiny.model(**inputs)
    for hook in hooks:
        hook.remove()
    chosen = (rows == SINK) | ((rows == IMAGE) & ((rows == IMAGE).cumsum(dim=1) == 2))
    for layer, massive in enumerate(seen):
        assert torch.equal(massive, chosen if layer > 1 else torch.zeros_like(chosen))


def test_seeds_and_images_must_match() -> None:
    with pytest.raises(ValueError, match="2 images in the texts, but 1 seeds"):
        built("llava").inputs(TEXTS, [1])
    with pytest.raises(ValueError, match="one image a sample"):
        built("instructblip").inputs(TWO)
    with pytest.raises(ValueError, match="no images"):
        built("llama").inputs(TEXTS)
