"""Image features that several answers share: computed once, and the same to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_lvlms import FAMILIES, IMAGE, by_kind, tiny_lvlm

from regard.mllm.interventions.vcd import VCD
from regard.mllm.interventions.vhr import VHR
from regard.mllm.session.session import intervene
from regard.mllm.session.shared_features import shared_image_features

FOUND = [family for family in FAMILIES if family not in ("llama",)]
EDITED = [family for family in FOUND if family not in ("mllama", "qwen3_5")]
TEXTS = [[5, IMAGE, 7, 8], [9, 3, IMAGE, 10]]


def logits(model: Any, inputs: dict[str, Any], interventions: Any = ()) -> torch.Tensor:
    with intervene(model, interventions, allow_inactive=True) as session:
        found = session.generate(
            **inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_scores=True
        )
    return torch.stack(list(found.scores))


def runs(encoder: torch.nn.Module) -> list[int]:
    """A list that grows by one whenever the encoder runs."""
    calls: list[int] = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("family", by_kind(EDITED))
def test_the_encoder_runs_once_for_all_arms_and_every_score_is_the_same(family: str) -> None:
    tiny = tiny_lvlm(family)
    inputs, model = tiny.inputs(TEXTS), tiny.model
    alone = [logits(model, inputs, interventions) for interventions in ((), VHR(alpha=1.5), ())]
    encoder = model.get_encoder(modality="image")
    calls = runs(encoder)
    with shared_image_features(model):
        together = [logits(model, inputs, interventions) for interventions in ((), VHR(alpha=1.5), ())]
    assert model.get_encoder(modality="image") is encoder
    assert len(calls) == (1 if encoder is not model else 0)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(together[0], together[1])


@torch.no_grad()
@pytest.mark.parametrize("family", by_kind(FOUND))
def test_other_images_are_encoded_anew(family: str) -> None:
    tiny = tiny_lvlm(family)
    first, model = tiny.inputs(TEXTS), tiny.model
    second = {name: value.flip(0) if value.is_floating_point() else value for name, value in first.items()}
    expected = [model(**inputs).logits for inputs in (first, second)]
    with shared_image_features(model):
        for _ in range(2):
            found = [model(**inputs).logits for inputs in (first, second)]
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


def test_an_intervention_that_shows_noise_has_it_encoded() -> None:
    tiny = tiny_lvlm("llava")
    inputs = tiny.inputs(TEXTS)
    alone = logits(tiny.model, inputs, VCD(plausible=0.0))
    with shared_image_features(tiny.model):
        logits(tiny.model, inputs)
        assert torch.equal(logits(tiny.model, inputs, VCD(plausible=0.0)), alone)


def test_inputs_that_are_changed_in_place_are_other_inputs() -> None:
    tiny = tiny_lvlm("llava")
    inputs = tiny.inputs(TEXTS)
    with shared_image_features(tiny.model), torch.no_grad():
        before = tiny.model(**inputs).logits
        inputs["pixel_values"].add_(1.0)
        assert not torch.equal(tiny.model(**inputs).logits, before)


def test_the_encoder_is_back_after_an_error() -> None:
    tiny = tiny_lvlm("llava")
    encoder = tiny.model.get_encoder(modality="image")
    with pytest.raises(RuntimeError, match="stop"), shared_image_features(tiny.model):
        raise RuntimeError("stop")
    assert tiny.model.get_encoder(modality="image") is encoder
