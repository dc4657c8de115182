"""What VHR claims: half of the heads, those that the image changes most, without those that are merely loud."""

from __future__ import annotations

import pytest
import torch
from tiny_lvlms import IMAGE, tiny_lvlm

from regard.mllm import VHR, RandomHeads, intervene
from regard.mllm.interventions.vhr import head_divergence


def test_half_of_the_heads_are_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(5, 8, 16, generator=generator) for _ in range(2)]
    found = head_divergence(*pair, outliers=False)
    assert found.selected.sum(dim=-1).tolist() == [4] * 5
    torch.testing.assert_close(found.divergence, (pair[0] - pair[1]).norm(dim=-1))


def test_a_head_that_shouts_without_the_image_is_no_sign_of_sight() -> None:
    without = torch.full((1, 8, 4), 0.1)
    without[0, 2] = 9.0
    with_image = without + torch.linspace(0.1, 0.2, 8)[None, :, None]
    with_image[0, 2] = -9.0
    loud = head_divergence(with_image, without)
    assert loud.outlier[0].nonzero().flatten().tolist() == [2]
    assert not loud.selected[0, 2]
    assert head_divergence(with_image, without, outliers=False).selected[0, 2]


def test_differences_of_rounding_choose_no_head() -> None:
    heads = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0))
    nearly = heads * (1 + 1e-7 * torch.arange(8)[None, :, None])
    assert not head_divergence(heads, nearly).selected.any()


def test_outliers_follow_the_deviation_that_is_asked_for() -> None:
    without = torch.zeros(1, 4, 1)
    without[0, :, 0] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    with_image = without * 2
    assert head_divergence(with_image, without).outlier.any()  # 1 > 0.25 + 0.43
    assert head_divergence(with_image, without, std="sample").outlier.any()  # 1 > 0.25 + 0.5


@pytest.mark.parametrize(
    "intervention", [VHR(alpha=1.5), RandomHeads(alpha=1.5)], ids=lambda intervention: intervention.name
)
def test_heads_stay_for_the_whole_answer_and_half_of_them_are_scaled(intervention: VHR | RandomHeads) -> None:
    tiny = tiny_lvlm("llava")
    with intervene(tiny.model, intervention) as session:
        session.generate(**tiny.inputs([[5, IMAGE, 6, 7]]), max_new_tokens=5)
        (done,) = session.activity
    rows = 7 + 4  # the prompt, and four new tokens that are read
    assert done.rows.tolist() == [[rows] * 4]
    assert done.heads.tolist() == [[2 * rows] * 4]


def test_scaling_by_one_is_the_model_itself() -> None:
    tiny = tiny_lvlm("llava")
    inputs = tiny.inputs([[5, IMAGE, 6, 7]])
    with intervene(tiny.model) as session:
        base = session.forward(**inputs).logits
    with intervene(tiny.model, VHR(alpha=1.0), allow_inactive=True) as session:
        assert torch.equal(session.forward(**inputs).logits, base)
        assert not session.activity[0].active


def test_alpha_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0; got 0"):
        VHR(alpha=0.0)
