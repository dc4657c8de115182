from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_lvlms import IMAGE, TinyLVLM, by_kind, tiny_lvlm
from tiny_matchers import save_blip, save_open_clip
from torch import Tensor

from regard.mllm.image_matching import Match, load_matcher
from regard.mllm.interventions.agla import AGLA, augmented, kept_pixels, smooth_map
from regard.mllm.session.session import intervene

TEXTS = [[5, IMAGE, 7, 8, 9], [5, 6, 11, IMAGE, 12, 13, 14, 15]]
QUESTIONS = ["is there a cat ?", "is there a red dog in the image ?"]
FAMILIES = ["llava", "llava_next", "qwen2_vl", "gemma3", "idefics3", "instructblip"]


@dataclasses.dataclass
class PromptBatch:
    """Prompts of a tiny model, whose `pixel_values` are made from the images."""

    tiny: TinyLVLM
    texts: list[list[int]]
    questions: Sequence[str]
    images: Sequence[Sequence[Image.Image]]
    asked: list[Sequence[Sequence[Image.Image]]] = dataclasses.field(default_factory=list)

    def first_tokens(self, word: str) -> list[int]:
        raise AssertionError(f"AGLA has no use for the tokens of {word!r}")

    def inputs_with(self, images: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        self.asked.append(images)
        inputs = self.tiny.inputs(self.texts)
        pixels = inputs["pixel_values"]
        flat = [image for some in images for image in some]
        count = pixels.numel() // len(flat)
        rows = [np.resize(np.asarray(image.resize((32, 32))).ravel() / 64 - 2, count) for image in flat]
        return inputs | {"pixel_values": torch.tensor(np.stack(rows)).to(pixels).view_as(pixels)}


def photo(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(1, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator).numpy())


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_blip(tmp_path_factory.mktemp("models") / "blip"))


@pytest.fixture
def asked() -> PromptBatch:
    return PromptBatch(tiny_lvlm("llava"), TEXTS, QUESTIONS, [[photo(0)], [photo(1, (33, 70))]])


def run(tiny: TinyLVLM, intervention: AGLA | None, inputs: dict[str, Tensor], **options: Any) -> Any:
    options = {"max_new_tokens": 5, "output_scores": True, "return_dict_in_generate": True} | options
    with intervene(tiny.model, [intervention] if intervention else [], allow_inactive=True) as session:
        return session.generate(**inputs, **options)


def extended(tiny: TinyLVLM, texts: list[list[int]], answer: Tensor, images: Sequence[int]) -> dict[str, Tensor]:
    """Inputs of prompts with answers behind them; the texts are equally long after padding on the left."""
    return tiny.inputs([text + row.tolist() for text, row in zip(texts, answer, strict=True)], images=images)


@pytest.mark.parametrize("family", by_kind(FAMILIES, ("llava", "gemma3")))
def test_the_fourth_word_is_scored_by_both_prompts_read_anew(family: str) -> None:
    """Only a second stream with a cache of its own can know its image at the fourth word."""
    tiny = tiny_lvlm(family)
    inputs, other = tiny.inputs(TEXTS, images=(0, 1)), tiny.inputs(TEXTS, images=(2, 3))
    output = run(tiny, AGLA(alpha=2.0, plausible=0.0, inputs=other), inputs)
    answer = output.sequences[:, -5:][:, :3]
    with torch.no_grad():
        z = tiny.model(**extended(tiny, TEXTS, answer, (0, 1))).logits[:, -1, :190]
        z_other = tiny.model(**extended(tiny, TEXTS, answer, (2, 3))).logits[:, -1, :190]
    torch.testing.assert_close(output.scores[3][:, :190], z + 2 * z_other, rtol=1e-3, atol=1e-3)
    assert (z - z_other).abs().max() > 0.05  # so the authors' shared cache, 3 z, would fail


@pytest.mark.parametrize("family", by_kind(FAMILIES, ("llava", "gemma3")))
def test_a_batch_answers_as_its_samples_do_alone(family: str) -> None:
    tiny = tiny_lvlm(family)
    both = run(tiny, AGLA(inputs=tiny.inputs(TEXTS, images=(2, 3))), tiny.inputs(TEXTS, images=(0, 1)))
    for index, text in enumerate(TEXTS):
        intervention = AGLA(inputs=tiny.inputs([text], images=(2 + index,)))
        alone = run(tiny, intervention, tiny.inputs([text], images=(index,)))
        assert alone.sequences[0, -5:].tolist() == both.sequences[index, -5:].tolist()
        finite = alone.scores[3][0].isfinite()
        assert (finite == both.scores[3][index].isfinite()).all()
        torch.testing.assert_close(alone.scores[3][0][finite], both.scores[3][index][finite], rtol=1e-3, atol=1e-3)


def test_without_weight_and_cut_the_words_are_the_models_own() -> None:
    tiny = tiny_lvlm("llava")
    inputs, other = tiny.inputs(TEXTS, images=(0, 1)), tiny.inputs(TEXTS, images=(2, 3))
    plain = run(tiny, None, inputs, max_new_tokens=12).sequences
    assert torch.equal(
        run(tiny, AGLA(alpha=0.0, plausible=0.0, inputs=other), inputs, max_new_tokens=12).sequences, plain
    )
    assert not torch.equal(
        run(tiny, AGLA(alpha=20.0, plausible=0.0, inputs=other), inputs, max_new_tokens=12).sequences, plain
    )


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_words_that_generation_bars_stay_barred(alpha: float) -> None:
    tiny = tiny_lvlm("llava")
    inputs, other = tiny.inputs(TEXTS, images=(0, 1)), tiny.inputs(TEXTS, images=(2, 3))
    scores = run(tiny, AGLA(alpha=alpha, plausible=0.0, inputs=other), inputs, bad_words_ids=[[7]]).scores[1]
    barred = [7, *tiny.model.generation_config.suppress_tokens]
    assert scores[:, barred].isneginf().all()
    assert scores.isfinite().sum() == 2 * (200 - len(barred))


def test_words_far_below_the_models_likeliest_are_ruled_out() -> None:
    tiny = tiny_lvlm("llava")
    inputs, other = tiny.inputs(TEXTS, images=(0, 1)), tiny.inputs(TEXTS, images=(2, 3))
    scores = run(tiny, AGLA(inputs=other), inputs, max_new_tokens=1).scores[0]
    with torch.no_grad():
        z = tiny.model(**inputs).logits[:, -1]
    z[:, 190:] = scores[:, 190:]
    shares = z.softmax(dim=-1)
    assert ((shares >= 0.5 * shares.amax(dim=-1, keepdim=True)) == scores.isfinite())[:, :190].all()


def test_an_answer_that_is_given_is_scored_as_one_that_is_generated() -> None:
    tiny = tiny_lvlm("llava")
    inputs, other = tiny.inputs(TEXTS, images=(0, 1)), tiny.inputs(TEXTS, images=(2, 3))
    intervention = AGLA(plausible=0.0, inputs=other)
    output = run(tiny, intervention, inputs)
    prompt = inputs["input_ids"].shape[1]
    whole = extended(tiny, TEXTS, output.sequences[:, -5:-1], (0, 1))
    with intervene(tiny.model, intervention) as session:
        logits = session.forward(prompt=prompt, **whole).logits
    for step in range(5):
        torch.testing.assert_close(
            logits[:, prompt - 1 + step, :190], output.scores[step][:, :190], rtol=1e-3, atol=1e-3
        )


def test_an_intervention_that_is_not_bound_says_what_it_needs() -> None:
    tiny = tiny_lvlm("llava")
    with pytest.raises(ValueError, match="LVLM"):
        run(tiny, AGLA(), tiny.inputs(TEXTS))


def test_inputs_of_other_prompts_are_refused() -> None:
    tiny = tiny_lvlm("llava")
    for texts in (TEXTS[:1], TEXTS[::-1]):
        with pytest.raises(ValueError, match="differ from those of this call"):
            run(tiny, AGLA(inputs=tiny.inputs(texts)), tiny.inputs(TEXTS))


@pytest.mark.parametrize("kind", ["blip", "clip"])
def test_bound_inputs_show_what_the_question_is_about(asked: PromptBatch, blip: str, tmp_path: Path, kind: str) -> None:
    name = blip if kind == "blip" else f"open_clip:local-dir:{save_open_clip(tmp_path / 'clip')}"
    intervention = AGLA(matcher=name, block=1)
    bound = intervention.bind(asked)
    matcher = load_matcher(name, block=1)
    for images, originals, question in zip(asked.asked[-1], asked.images, QUESTIONS, strict=True):
        match = matcher.match(originals[0], question)
        kept = kept_pixels(smooth_map(match.relevance, originals[0].height, originals[0].width), match.similarity)
        expected = np.asarray(originals[0]) * kept.numpy()[..., None]
        assert np.array_equal(np.asarray(images[0]), expected)
        assert kept.float().mean().item() == pytest.approx(min(1 - match.similarity / 2, 1), abs=0.01)
    assert bound.inputs is not None
    assert intervention.inputs is None
    assert bound == intervention  # the options are the same
    assert not torch.equal(bound.inputs["pixel_values"], asked.inputs_with(asked.images)["pixel_values"])


def test_a_bound_intervention_answers_and_binding_is_by_sample(asked: PromptBatch, blip: str) -> None:
    intervention = AGLA(matcher=blip, block=1)
    inputs = asked.inputs_with(asked.images)
    both = run(asked.tiny, intervention.bind(asked), inputs).sequences[:, -5:]
    for index in range(2):
        one = slice(index, index + 1)
        alone = PromptBatch(asked.tiny, TEXTS[one], QUESTIONS[one], asked.images[one])
        answer = run(asked.tiny, intervention.bind(alone), alone.inputs_with(alone.images)).sequences[:, -5:]
        assert torch.equal(answer, both[one])


def test_binding_inside_a_session_leaves_the_callers_gradients_alone(asked: PromptBatch, blip: str) -> None:
    intervention = AGLA(matcher=blip, block=1, device="cpu")
    with torch.no_grad(), intervene(asked.tiny.model):
        bound = intervention.bind(asked)
        assert not torch.is_grad_enabled()
    assert bound.inputs is not None
    assert not any(value.requires_grad for value in bound.inputs.values())
    assert len(asked.asked) == 1  # a device that is given needs no look at the inputs


def test_the_matching_model_is_loaded_once(asked: PromptBatch, blip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []

    def load(name: str, **options: Any) -> Any:
        loads.append(name)
        return load_matcher(name, **options)

    monkeypatch.setattr("regard.mllm.interventions.agla.load_matcher", load)
    intervention = AGLA(matcher=blip, block=1)
    assert not loads
    intervention.bind(asked)
    intervention.bind(asked)
    assert loads == [blip]


def test_prompts_without_images_are_refused(blip: str) -> None:
    text = PromptBatch(tiny_lvlm("llava"), [[5, 6]], ["is it ?"], [[]])
    with pytest.raises(ValueError, match="needs prompts with images"):
        AGLA(matcher=blip).bind(text)


def test_a_matcher_that_is_not_there_is_told_where_to_get(asked: PromptBatch) -> None:
    with pytest.raises(ValueError, match="Salesforce/blip-itm-large-coco"):
        AGLA(matcher="/nowhere/blip").bind(asked)


@pytest.mark.parametrize(("similarity", "kept"), [(1.0, 51), (0.5, 76), (0.2, 91), (0.0, 100), (-0.3, 100)])
def test_as_many_pixels_are_kept_as_the_similarity_says(similarity: float, kept: int) -> None:
    values = torch.randperm(100, generator=torch.Generator().manual_seed(0)).view(10, 10).float()
    mask = kept_pixels(values, similarity)
    assert mask.sum() == kept
    assert mask[values >= 100 - kept].all()


def test_equal_pixels_are_all_kept() -> None:
    assert kept_pixels(torch.zeros(4, 5), 0.9).all()
    assert augmented(photo(0), Match(0.9, torch.zeros(3, 3))).tobytes() == photo(0).tobytes()


def test_the_map_is_that_of_lavis() -> None:
    """Values of `getAttMap` with scikit-image 0.26, and the pixels that `augmentation.py` keeps at similarity 0.5."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    relevance = torch.exp(-((y - 5) ** 2 + (x - 17) ** 2) / 18) + 0.4 * torch.exp(-((y - 20) ** 2 + (x - 3) ** 2) / 8)
    values = smooth_map(relevance + 0.02 * torch.sin(y * 1.3 + x * x), 384, 384)
    corners = [(0, 0), (88, 280), (328, 56), (383, 383), (200, 100), (60, 200)]
    expected = torch.tensor([0.0123, 0.9996, 0.3881, 0.0076, 0.0305, 0.2293])
    torch.testing.assert_close(torch.stack([values[corner] for corner in corners]), expected, rtol=0, atol=1e-4)
    assert kept_pixels(values, 0.5).sum() == 110593


@pytest.mark.parametrize(("row", "column"), [(0, 5), (3, 0), (2, 4)])
def test_the_map_is_stretched_over_the_whole_image(row: int, column: int) -> None:
    relevance = torch.zeros(4, 6)
    relevance[row, column] = 1.0
    values = smooth_map(relevance, 100, 300)
    assert values.shape == (100, 300)
    y, x = divmod(values.argmax().item(), 300)
    assert abs(y - 25 * (row + 0.5)) < 8
    assert abs(x - 50 * (column + 0.5)) < 16
    assert values.amax() == 1
    assert values.amin() == 0


def test_an_augmented_image_keeps_its_size_and_its_relevant_side() -> None:
    relevance = torch.arange(8.0).expand(8, 8)
    image = augmented(Image.new("L", (90, 41), 200), Match(1.0, relevance))
    assert (image.size, image.mode) == ((90, 41), "RGB")
    pixels = np.asarray(image)
    assert (pixels[4:-4, 75:-4] == 200).all()  # the map fades towards the border
    assert (pixels[:, :40] == 0).all()


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"plausible": 1.5}, {"block": -1}, {"dtype": "int8"}])
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(options))):
        AGLA(**options)
