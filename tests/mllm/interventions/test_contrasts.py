"""Interventions with a second stream: their scores are those of fresh forward passes of both prompts, put together."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tiny_lvlms import IMAGE, TinyLVLM, tiny_lvlm
from torch import Tensor

from regard.mllm import PAI, VCD, VDD, Debias, EndBias, WordBias, intervene
from regard.mllm.interventions.debias import calibrated
from regard.mllm.interventions.vcd import diffused
from regard.mllm.session.contract import Intervention
from regard.mllm.session.teacher_forcing import with_answers

TEXT, PLAIN = [5, 6, IMAGE, 7, 8], [5, 6, 7, 8]


def scores_of(tiny: TinyLVLM, intervention: Intervention) -> tuple[Tensor, Tensor]:
    """Tokens of an answer and the scores that it came from."""
    inputs = tiny.inputs([TEXT], images=(0,))
    with intervene(tiny.model, intervention) as session:
        found = session.generate(**inputs, max_new_tokens=4, return_dict_in_generate=True, output_scores=True)
    return found.sequences[0, -4:], torch.cat(found.scores)


def fresh(tiny: TinyLVLM, inputs: dict[str, Tensor], answer: Tensor) -> Tensor:
    """Scores of each word of an answer, of one forward pass without a cache."""
    with torch.no_grad():
        logits = tiny.model(**with_answers(tiny.model.config.model_type, inputs, answer[None, :-1])).logits
    return logits[0, -len(answer) :]


def vdd(scores: Tensor, other: Tensor) -> Tensor:
    return 1.5 * scores - 0.5 * other


def pai(scores: Tensor, other: Tensor) -> Tensor:
    scores, other = scores.log_softmax(-1), other.log_softmax(-1)
    return 1.3 * (scores - other) + other


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3"])
@pytest.mark.parametrize(
    ("intervention", "combine", "instead"),
    [
        (VDD(alpha=0.5, plausible=0.0), vdd, PLAIN),
        (VDD(alpha=0.5, plausible=0.0, instead="unknown", unknown_token=3), vdd, [5, 6, 3, 7, 8]),
        (VCD(alpha=0.5, plausible=0.0), vdd, None),
        (PAI(alpha=0.0, gamma=1.3, plausible=1e-30), pai, PLAIN),
    ],
    ids=["vdd", "vdd with an unknown token", "vcd", "pai's guidance"],
)
def test_scores_are_those_of_both_prompts_together(
    family: str, intervention: Intervention, combine: Callable[[Tensor, Tensor], Tensor], instead: list[int] | None
) -> None:
    tiny = tiny_lvlm(family)
    tiny.model.generation_config.suppress_tokens = None
    answer, scores = scores_of(tiny, intervention)
    imaged = tiny.inputs([TEXT], images=(0,))
    if instead is None:
        other = imaged | {"pixel_values": diffused(imaged["pixel_values"], 500)}
    else:
        other = tiny.inputs([instead])
    expected = combine(fresh(tiny, imaged, answer), fresh(tiny, other, answer))
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


def test_words_far_less_likely_than_the_likeliest_are_ruled_out() -> None:
    tiny = tiny_lvlm("llava")
    answer, scores = scores_of(tiny, VDD(alpha=0.5, plausible=0.1))
    base = fresh(tiny, tiny.inputs([TEXT], images=(0,)), answer).softmax(-1)
    base[:, tiny.model.generation_config.suppress_tokens] = 0
    possible = base >= 0.1 * base.amax(-1, keepdim=True)
    assert torch.equal(torch.isfinite(scores), possible)


def test_diffusion_goes_from_the_image_to_noise() -> None:
    pixels = torch.full((20_000,), 2.0)
    assert diffused(pixels, 0).sub(2).abs().max() < 0.03
    kept, step = 1.0, 0
    while step < 1000:  # the authors' schedule, step by step
        kept *= 1 - (1e-5 + (0.005 - 1e-5) / (1 + math.exp(6 - 12 * step / 999)))
        step += 1
    noise = diffused(pixels, 999)
    assert noise.mean() == pytest.approx(2 * math.sqrt(kept), abs=0.02)
    assert noise.var() == pytest.approx(1 - kept, abs=0.03)
    means = [diffused(pixels, step).mean().item() for step in (0, 250, 500, 750, 999)]
    assert means == sorted(means, reverse=True)
    assert torch.equal(diffused(pixels, 500, seed=3), diffused(pixels, 500, seed=3))
    assert not torch.equal(diffused(pixels, 500, seed=3), diffused(pixels, 500, seed=4))


@pytest.mark.parametrize("rule", ["divide", "subtract"])
def test_debias_shares_the_labels_probability_out_anew(rule: str) -> None:
    tiny = tiny_lvlm("llava")
    labels = [[3, 4], [7]]
    inputs = tiny.inputs([TEXT], images=(0,))
    answer, scores = scores_of(tiny, Debias(labels=labels, rule=rule))
    plain = fresh(tiny, inputs, answer)
    free = fresh(tiny, tiny.inputs([PLAIN]), answer)[0].softmax(-1)

    def shares(probabilities: Tensor) -> Tensor:
        mass = torch.stack([probabilities[label].sum() for label in labels])
        return (mass / mass.sum())[None]

    expected = calibrated(shares(plain[0].softmax(-1)), shares(free), rule)  # type: ignore[arg-type]
    torch.testing.assert_close(shares(scores[0].exp()), expected, rtol=1e-3, atol=1e-4)
    others = [token for token in range(100) if token not in (3, 4, 7)]
    torch.testing.assert_close(scores[0, others], plain[0, others], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[1, :100], plain[1, :100], rtol=1e-4, atol=1e-4)  # the first word alone


def test_a_known_prior_needs_no_reading_without_the_image() -> None:
    tiny = tiny_lvlm("llava")
    labels, inputs = [[3, 4], [7]], tiny.inputs([PLAIN])
    with torch.no_grad():
        free = tiny.model(**inputs).logits[0, -1].softmax(-1)
    mass = torch.stack([free[label].sum() for label in labels])
    prior = (mass / mass.sum()).tolist()
    _, own = scores_of(tiny, Debias(labels=labels))
    _, known = scores_of(tiny, Debias(labels=labels, prior=prior))
    torch.testing.assert_close(own, known, rtol=1e-4, atol=1e-4)


def test_biases_move_their_tokens_and_no_others() -> None:
    tiny = tiny_lvlm("llava")
    tiny.model.generation_config.eos_token_id = 2
    base = fresh(tiny, tiny.inputs([TEXT], images=(0,)), torch.tensor([3]))[0]
    for intervention, token, amount in ((EndBias(amount=0.5), 2, 0.5), (WordBias(tokens=[9], amount=-1.0), 9, -1.0)):
        with intervene(tiny.model, intervention) as session:
            found = session.generate(
                **tiny.inputs([TEXT], images=(0,)), max_new_tokens=1, return_dict_in_generate=True, output_scores=True
            )
        change = (found.scores[0][0] - base)[:100]
        assert change[token] == pytest.approx(amount, abs=1e-4)
        change[token] = 0
        assert change.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VDD(alpha=-1.0), "alpha >= 0"),
        (lambda: VDD(instead="unknown"), "needs unknown_token"),
        (lambda: VCD(step=1000), "step from 0 to 999"),
        (lambda: PAI(gamma=0.5), "gamma >= 1"),
        (lambda: Debias(labels=["yes"]), "at least two labels"),
        (lambda: Debias(labels=[[1], [2]], prior=[1.0]), "2 labels and 1 prior"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], Intervention], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("intervention", [Debias(), WordBias()], ids=lambda intervention: intervention.name)
def test_words_need_their_tokens(intervention: Intervention) -> None:
    tiny = tiny_lvlm("llava")
    with intervene(tiny.model, intervention, allow_inactive=True) as session:
        with pytest.raises(ValueError, match="needs the tokens"):
            session.generate(**tiny.inputs([TEXT]), max_new_tokens=1)


def test_an_intervention_that_needs_the_image_says_so() -> None:
    tiny = tiny_lvlm("llava")
    with intervene(tiny.model, VCD(), allow_inactive=True) as session:
        with pytest.raises(ValueError, match="vcd needs the input 'pixel_values'"):
            session.generate(**tiny.inputs([PLAIN]), max_new_tokens=1)


def test_beams_with_a_second_image_are_refused() -> None:
    tiny = tiny_lvlm("llava")
    with intervene(tiny.model, VCD(), allow_inactive=True) as session:
        with pytest.raises(ValueError, match="num_beams=1"):
            session.generate(**tiny.inputs([TEXT]), max_new_tokens=1, num_beams=2)
