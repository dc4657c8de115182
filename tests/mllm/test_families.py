"""Every intervention in every family: what it edits, and that neither padding, caches, beams nor history change it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_lvlms import FAMILIES as ALL_FAMILIES
from tiny_lvlms import IMAGE, REPRESENTATIVES, SINK, TinyLVLM, by_kind, plant_sinks
from tiny_lvlms import tiny_lvlm as new_tiny_lvlm
from torch import Tensor

from regard.mllm.interventions.act import ACT
from regard.mllm.interventions.debias import Debias
from regard.mllm.interventions.pai import PAI
from regard.mllm.interventions.rebalance import Rebalance
from regard.mllm.interventions.var import VAR
from regard.mllm.interventions.vcd import VCD
from regard.mllm.interventions.vdd import VDD
from regard.mllm.interventions.vhr import VHR
from regard.mllm.interventions.zerotuning import ZeroTuning
from regard.mllm.session.contract import Intervention
from regard.mllm.session.session import intervene
from regard.mllm.session.teacher_forcing import with_answers

#: mllama reads images by cross-attention, half of qwen3_5's layers are linear, llama reads none: refused elsewhere.
FAMILIES = [family for family in ALL_FAMILIES if family not in ("mllama", "qwen3_5", "llama")]
TEXTS = [[SINK, 5, IMAGE, 7, 8], [SINK, 9, 3, 4, IMAGE, 10, 11, 12]]
TOKENS = 3
NEVER = 1e-30  # share of the likeliest word below which none is ruled out

INTERVENTIONS: dict[str, Intervention] = {
    "var": VAR(dimensions=[5], threshold=6.0, min_image=0.01, min_free=0.01),
    "vhr": VHR(layers="1,-2:", alpha=1.5),
    "rebalance": Rebalance(local=0.5, gamma=1.0),
    "pai": PAI(alpha=0.5, gamma=1.0),
    "pai with guidance": PAI(alpha=0.2, gamma=1.5, plausible=NEVER),
    "vcd": VCD(plausible=0.0),
    "vdd": VDD(plausible=0.0, alpha=0.5),
    "debias": Debias(labels=[[3, 4], [7]]),
    "act": ACT(alpha=1.2),
    "zerotuning": ZeroTuning(),
    "all of attention": None,  # type: ignore[dict-item]
}
TOGETHER = [INTERVENTIONS[name] for name in ("var", "vhr", "rebalance", "pai", "act", "zerotuning")]


#: In the default run, one family has every intervention, and one of each kind those that use every mechanism.
CELLS = [
    pytest.param(family, name, marks=() if family == "llava" or several_kinds else pytest.mark.full)
    for name in INTERVENTIONS
    for family in FAMILIES
    for several_kinds in [family in REPRESENTATIVES and name in ("all of attention", "vdd")]
]
BEAM_CELLS = [
    pytest.param(family, name, marks=() if (family, name) in quick else pytest.mark.full)
    for name in ("var", "vhr", "rebalance", "pai with guidance", "all of attention")
    for family in FAMILIES
    for quick in [{("llava", "all of attention"), ("llava", "pai with guidance"), ("gemma3", "all of attention")}]
]


@functools.cache
def tiny_lvlm(family: str) -> TinyLVLM:
    return new_tiny_lvlm(family)


def interventions_of(name: str) -> list[Intervention]:
    return TOGETHER if name == "all of attention" else [INTERVENTIONS[name]]


def run(
    tiny: TinyLVLM, interventions: Sequence[Intervention], inputs: dict[str, Any], **options: Any
) -> tuple[Tensor, Tensor, Any]:
    """New tokens (samples, steps), scores (samples, steps, words) and the session."""
    length = inputs["input_ids"].shape[1]
    with plant_sinks(tiny), intervene(tiny.model, interventions, allow_inactive=True) as session:
        found = session.generate(
            **inputs, **({"max_new_tokens": TOKENS} | options), return_dict_in_generate=True, output_scores=True
        )
        session.activity  # noqa: B018  closes the call
    tokens = found.sequences[:, -TOKENS:] if found.sequences.shape[1] > TOKENS else found.sequences
    assert found.sequences.shape[1] in (TOKENS, length + TOKENS)  # instructblip gives the answer alone
    return tokens, torch.stack(list(found.scores), dim=1), session


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 2e-4) -> None:
    assert actual.shape == expected.shape
    finite = torch.isfinite(actual) & torch.isfinite(expected)
    assert finite.float().mean() > 0.9
    pair = [scores.masked_fill(~finite, -torch.inf).log_softmax(dim=-1)[finite] for scores in (actual, expected)]
    torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("family", "name"), CELLS)
def test_an_intervention_edits_and_no_circumstance_changes_what_it_does(family: str, name: str) -> None:
    tiny, interventions = tiny_lvlm(family), interventions_of(name)
    inputs = tiny.inputs(TEXTS, images=(0, 1))
    tokens, scores, session = run(tiny, interventions, inputs)

    for one in session.activity:  # every intervention has done something to every sample
        fired = one.heads.sum(dim=1) + one.token_change
        assert (fired > 0).all(), str(one)

    alone = [run(tiny, interventions, tiny.inputs([text], images=(seed,))) for seed, text in enumerate(TEXTS)]
    for sample, (_, single, _) in enumerate(alone):  # which also is: after another image, as if it were the first
        assert_same(scores[sample : sample + 1], single)

    with plant_sinks(tiny), intervene(tiny.model, interventions, allow_inactive=True) as session:
        answered = with_answers(tiny.model.config.model_type, inputs, tokens[:, :-1])
        read = session.forward(prompt=inputs["input_ids"].shape[1], **answered)
    assert_same(read.logits[:, -TOKENS:], scores)

    static, _, _ = run(tiny, interventions, inputs, cache_implementation="static")
    assert torch.equal(static, tokens)


@pytest.mark.parametrize(("family", "name"), BEAM_CELLS)
def test_beams_of_a_batch_are_those_of_its_samples(family: str, name: str) -> None:
    tiny, interventions = tiny_lvlm(family), interventions_of(name)
    together, _, session = run(tiny, interventions, tiny.inputs(TEXTS, images=(0, 1)), num_beams=3)
    for one in session.activity:
        assert one.rows.shape[0] == 2
        assert (one.heads.sum(dim=1) + one.token_change > 0).all()
    for seed, text in enumerate(TEXTS):
        alone, _, _ = run(tiny, interventions, tiny.inputs([text], images=(seed,)), num_beams=3)
        assert torch.equal(together[seed], alone[0])


@pytest.mark.parametrize("family", by_kind(FAMILIES))
def test_a_session_without_interventions_is_the_untouched_model(family: str) -> None:
    tiny = tiny_lvlm(family)
    inputs = tiny.inputs(TEXTS, images=(0, 1))
    with torch.no_grad():
        untouched = tiny.model(**inputs).logits
    tokens = tiny.model.generate(**inputs, max_new_tokens=TOKENS)
    with intervene(tiny.model) as session:
        torch.testing.assert_close(session.forward(**inputs).logits, untouched, rtol=1e-5, atol=1e-5)
        assert torch.equal(session.generate(**inputs, max_new_tokens=TOKENS), tokens)
    with intervene(tiny.model, watch=True) as session:  # every last row written out
        watched = session.forward(**inputs).logits
        torch.testing.assert_close(watched[:, -1], untouched[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", by_kind(FAMILIES))
def test_an_exception_leaves_the_model_as_it_was(family: str) -> None:
    tiny = tiny_lvlm(family)
    inputs = tiny.inputs(TEXTS, images=(0, 1))
    before = tiny.model.generate(**inputs, max_new_tokens=TOKENS)
    state = fingerprint(tiny)

    def fail(*_: Any) -> None:
        raise KeyError("in the middle")

    handle = tiny.text_stack.layers[2].register_forward_pre_hook(fail)
    with contextlib.suppress(KeyError), intervene(tiny.model, TOGETHER, watch=True) as session, plant_sinks(tiny):
        session.generate(**inputs, max_new_tokens=TOKENS)
        pytest.fail("nothing was raised")
    handle.remove()
    assert fingerprint(tiny) == state
    assert torch.is_grad_enabled()
    assert torch.equal(tiny.model.generate(**inputs, max_new_tokens=TOKENS), before)


def fingerprint(tiny: TinyLVLM) -> list[Any]:
    """Everything that a session touches: implementations, hooks and attributes of all modules."""
    found: list[Any] = [tiny.model.config.to_dict(), tiny.model.generation_config.to_dict()]
    for name, module in tiny.model.named_modules():
        config = getattr(module, "config", None)
        hooks = (len(module._forward_pre_hooks), len(module._forward_hooks))
        found.append((name, getattr(config, "_attn_implementation", None), hooks, sorted(vars(module))))
    return found


@pytest.mark.parametrize("family", by_kind(family for family in FAMILIES if family != "instructblip"))
def test_two_images_in_one_prompt_are_both_the_image(family: str) -> None:
    tiny = tiny_lvlm(family)
    inputs = tiny.inputs([[5, IMAGE, 7, IMAGE, 8], [6, IMAGE, 9]], images=(0, 1, 2))
    with intervene(tiny.model, [PAI(alpha=0.5, gamma=1.0), Rebalance(local=0.5, gamma=1.0)]) as session:
        tokens = session.generate(**inputs, max_new_tokens=2)
        assert all((one.heads > 0).any(dim=1).all() for one in session.activity)
        local = session.details["rebalance"]["local"]
    indices = (inputs["input_ids"] == IMAGE).nonzero().tolist()
    assert {(sample, index) for sample, row in enumerate(local) for index in row} <= {tuple(pair) for pair in indices}
    assert tokens.shape[1] == inputs["input_ids"].shape[1] + 2
