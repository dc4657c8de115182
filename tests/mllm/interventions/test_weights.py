"""ACT, ZeroTuning, ImageScale and PAI, each against its formula over whole rows of one layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_lvlms import IMAGE, TinyLVLM, tiny_lvlm
from torch import Tensor

from regard.mllm import ACT, PAI, ImageScale, ZeroTuning, intervene
from regard.mllm.session.contract import Intervention

TEXT = [5, 6, 3, IMAGE, 7, 8, 9]
FIRST, PHOTO, AFTER = 0, slice(3, 7), 7


@pytest.fixture(scope="module")
def tiny() -> TinyLVLM:
    return tiny_lvlm("llava")


def last_row(tiny: TinyLVLM, *interventions: Intervention) -> Tensor:
    """Mean over the heads of layer 0's attention of the last row; what comes before it no intervention changes."""
    with intervene(tiny.model, interventions, watch=True) as session:
        session.forward(**tiny.inputs([TEXT]))
        return session.attention()[0, 0, 0]


def heads_of_layer_0(tiny: TinyLVLM) -> Tensor:
    """All rows of all heads, by the model's own eager attention."""
    tiny.text_stack.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found: Any = tiny.model(**tiny.inputs([TEXT]), output_attentions=True)
    finally:
        tiny.text_stack.set_attn_implementation("sdpa")
    return found.attentions[0][0]  # heads rows keys


def test_what_is_watched_is_the_models_own_attention(tiny: TinyLVLM) -> None:
    torch.testing.assert_close(last_row(tiny), heads_of_layer_0(tiny)[:, -1].mean(0), rtol=1e-4, atol=1e-6)


def test_image_scale_multiplies_the_image(tiny: TinyLVLM) -> None:
    row = heads_of_layer_0(tiny)[:, -1].clone()
    row[:, PHOTO] *= 3
    row /= row.sum(-1, keepdim=True)
    torch.testing.assert_close(last_row(tiny, ImageScale(factor=3.0, layers=[0])), row.mean(0), rtol=1e-4, atol=1e-6)


def test_zerotuning_multiplies_the_first_token(tiny: TinyLVLM) -> None:
    row = heads_of_layer_0(tiny)[:, -1].clone()
    row[1:3, FIRST] *= 0.5
    row /= row.sum(-1, keepdim=True)
    intervention = ZeroTuning(gamma=0.5, heads="1,2", layers=[0])
    torch.testing.assert_close(last_row(tiny, intervention), row.mean(0), rtol=1e-4, atol=1e-6)


def test_act_takes_from_sinks_beyond_the_first_token(tiny: TinyLVLM) -> None:
    maps = heads_of_layer_0(tiny)
    row = maps[:, -1].clone()
    for head in range(4):
        mean = maps[head, AFTER:].mean(0)
        sinks = mean > 1.5 / len(mean)
        sinks[FIRST] = False
        freed = 0.6 * row[head, sinks].sum()
        others = row[head, ~sinks].sum()
        row[head, sinks] *= 0.4
        row[head, ~sinks] *= 1 + freed / others
    assert not torch.allclose(row, maps[:, -1])
    intervention = ACT(alpha=1.5, beta=0.4, layers=[0])
    torch.testing.assert_close(last_row(tiny, intervention), row.mean(0), rtol=1e-4, atol=1e-6)


def test_pai_raises_scores_and_so_the_image(tiny: TinyLVLM) -> None:
    before, after = last_row(tiny), last_row(tiny, PAI(alpha=0.5, gamma=1.0, layers=[0]))
    assert after.sum() == pytest.approx(1.0, abs=1e-5)
    assert not torch.allclose(before[PHOTO], after[PHOTO])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ACT(alpha=1.0), "alpha > 1"),
        (lambda: ZeroTuning(gamma=1.0), "not 1"),
        (lambda: ImageScale(factor=-1.0), "at least 0"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
