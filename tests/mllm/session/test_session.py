"""The session: what it refuses, how interventions compose, what it reports, and that nothing of it stays."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from tiny_lvlms import IMAGE, PAD, SINK, TinyLVLM, plant_sinks, tiny_lvlm
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

from regard.mllm.interventions.act import ACT
from regard.mllm.interventions.pai import PAI
from regard.mllm.interventions.var import VAR
from regard.mllm.interventions.vdd import VDD
from regard.mllm.interventions.vhr import VHR, head_divergence
from regard.mllm.interventions.zerotuning import ZeroTuning
from regard.mllm.session.contract import Edit
from regard.mllm.session.layer_selection import layer_indices
from regard.mllm.session.model_structure import attention_modules
from regard.mllm.session.session import intervene

TEXTS = [[SINK, 5, IMAGE, 7, 8], [SINK, 9, 3, 4, IMAGE, 10, 11, 12]]
PAY = PAI(alpha=0.5, gamma=1.0)
MOVE = VAR(dimensions=[5], threshold=6.0, min_image=0.01, min_free=0.01, transfer=0.7)


@pytest.fixture(scope="module")
def llava() -> TinyLVLM:
    return tiny_lvlm("llava")


# --- composition against the definition -------------------------------------------------------------------------------


def by_definition(tiny: TinyLVLM, inputs: dict[str, Tensor], *, swap: bool = False) -> Tensor:
    """Logits of the prompts with PAI, VAR and ZeroTuning, written out row by row over whole attention maps."""
    image = inputs["input_ids"] == IMAGE
    valid = inputs["attention_mask"].bool()
    sinks: dict[int, Tensor] = {}

    def look(layer: int) -> Any:
        def note(module: Any, args: tuple[Tensor, ...]) -> None:
            x = args[0].float()
            strength = x[..., 5].abs() / (x.square().mean(-1) + 1e-6).sqrt()
            sinks[layer] = (strength > MOVE.threshold) & valid

        return note

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float, **_: Any) -> Any:
        layer = getattr(module, "layer_idx", 0)
        groups = module.num_key_value_groups
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        z = q @ k.transpose(-1, -2) * scaling
        batch, heads, rows, keys = z.shape
        allowed = mask[..., :keys].expand(batch, heads, rows, keys) > -1
        if layer >= 2:
            for b in range(batch):
                z[b, :, -1, image[b]] += PAY.alpha * z[b, :, -1, image[b]].abs()
        a = z.masked_fill(~allowed, torch.finfo(z.dtype).min).softmax(-1)
        for b in range(batch):
            end = int(image[b].nonzero().max()) + 1
            for h in range(heads):
                for r in range(end, rows):
                    steps = [zero_row, move_row] if swap else [move_row, zero_row]
                    for step in steps:
                        a[b, h, r] = step(a[b, h, r], layer, b)
        return (a @ v).transpose(1, 2).contiguous(), None

    def move_row(row: Tensor, layer: int, b: int) -> Tensor:
        if layer < 2 or not (sinks[layer][b] & image[b]).any():
            return row
        sink, free = sinks[layer][b], image[b] & ~sinks[layer][b]
        seen = row[image[b]].sum()
        if seen < 0.01 or row[free].sum() / seen < 0.01:
            return row
        new = row.clone()
        new[sink] *= 1 - MOVE.transfer
        new[free] += MOVE.transfer * row[sink].sum() * row[free] / row[free].sum()
        return new

    def zero_row(row: Tensor, layer: int, b: int) -> Tensor:
        new = row.clone()
        new[int(valid[b].nonzero().min())] *= 0.6
        return new / new.sum()

    AttentionInterface.register("by_definition", attention)
    AttentionMaskInterface.register("by_definition", eager_mask)
    hooks = [layer.register_forward_pre_hook(look(i)) for i, layer in enumerate(tiny.text_stack.layers)]
    tiny.text_stack.set_attn_implementation("by_definition")
    try:
        with torch.no_grad(), plant_sinks(tiny):
            return tiny.model(**inputs).logits
    finally:
        tiny.text_stack.set_attn_implementation("sdpa")
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("swap", [False, True])
def test_composed_interventions_are_their_definition_one_after_the_other(llava: TinyLVLM, swap: bool) -> None:
    inputs = llava.inputs(TEXTS)
    expected = by_definition(llava, inputs, swap=swap)
    weights = [ZeroTuning(gamma=0.6), MOVE] if swap else [MOVE, ZeroTuning(gamma=0.6)]
    with plant_sinks(llava), intervene(llava.model, [PAY, *weights]) as session:
        actual = session.forward(**inputs).logits
    torch.testing.assert_close(actual[:, -1], expected[:, -1], rtol=1e-4, atol=1e-4)
    with torch.no_grad(), plant_sinks(llava):
        assert (llava.model(**inputs).logits[:, -1] - expected[:, -1]).abs().max() > 0.1


def test_a_session_in_a_session_adds_its_interventions_behind(llava: TinyLVLM) -> None:
    inputs = llava.inputs(TEXTS)
    with plant_sinks(llava), intervene(llava.model, [PAY, MOVE, VHR()]) as flat:
        expected = flat.forward(**inputs).logits
    with plant_sinks(llava), intervene(llava.model, PAY) as outer:
        with intervene(llava.model, [MOVE, VHR()]) as inner:
            assert torch.equal(inner.forward(**inputs).logits, expected)
            assert [one.intervention for one in inner.activity] == ["var", "vhr"]
            assert [one.intervention for one in outer.activity] == ["pai"]
        with intervene(llava.model, PAY) as alone:
            alone.forward(**inputs)
        after = outer.forward(**inputs).logits
    with plant_sinks(llava), intervene(llava.model, PAY) as session:
        assert torch.equal(session.forward(**inputs).logits, after)


def test_heads_are_those_of_reading_layer_after_layer_twice(llava: TinyLVLM) -> None:
    """VHR's run in step equals its definition: for every layer, read both prompts from the start again."""
    ids = [5, IMAGE, 7, 8]
    imaged, text = llava.inputs([ids]), llava.inputs([[5, 7, 8]])
    chosen: dict[int, Tensor] = {}

    def heads_at(layer: int, inputs: dict[str, Tensor]) -> Tensor:
        seen: list[Tensor] = []
        hooks = []
        for index, attention in enumerate(attention_modules(llava.model)):

            def scale(module: Any, args: tuple[Tensor, ...], index: int = index) -> tuple[Tensor]:
                heads = args[0].unflatten(-1, (4, -1))
                if index == layer:
                    seen.append(heads[:, -1])
                if index in chosen:
                    heads = heads * torch.where(chosen[index], 1.5, 1.0)[:, None, :, None]
                return (heads.flatten(-2),)

            hooks.append(attention.o_proj.register_forward_pre_hook(scale))
        with torch.no_grad():
            llava.model(**inputs)
        for hook in hooks:
            hook.remove()
        return seen[0]

    for layer in (1, 2, 3):
        chosen[layer] = head_divergence(heads_at(layer, imaged), heads_at(layer, text)).selected
    with intervene(llava.model, VHR(alpha=1.5, layers="1:")) as session:
        session.forward(**imaged)
        session.activity  # noqa: B018
    expected = {layer: [row.nonzero().flatten().tolist() for row in heads] for layer, heads in chosen.items()}
    assert session.details["vhr"]["heads"] == expected


# --- activity ---------------------------------------------------------------------------------------------------------


def test_activity_counts_rows_heads_and_mass(llava: TinyLVLM) -> None:
    inputs = llava.inputs(TEXTS)
    with intervene(llava.model, PAI(alpha=0.5, gamma=1.0, layers=[2]), watch=True) as session:
        session.generate(**inputs, max_new_tokens=5)
        (done,) = session.activity
        after = session.attention()
    with intervene(llava.model, watch=True) as session:
        session.forward(**inputs)
        before = session.attention()
    assert done.rows.tolist() == [[0, 0, 5, 0]] * 2  # the last row of the prompt and four new ones
    assert done.heads.tolist() == [[0, 0, 20, 0]] * 2
    assert ((done.moved > 0) == (done.rows > 0)).all()
    assert (done.to_image[:, 2] <= done.moved[:, 2] + 1e-5).all()
    assert after.shape == (2, 5, 4, inputs["input_ids"].shape[1])
    image = inputs["input_ids"] == IMAGE
    gained = ((after[:, 0, 2] - before[:, 0, 2]) * image).sum(-1) * 4  # heads; the first step of five
    with intervene(llava.model, PAI(alpha=0.5, gamma=1.0, layers=[2])) as session:
        session.forward(**inputs)
        torch.testing.assert_close(session.activity[0].to_image[:, 2], gained, rtol=1e-3, atol=1e-5)


def test_the_largest_change_of_a_score_is_that_of_pai(llava: TinyLVLM) -> None:
    inputs = llava.inputs(TEXTS)
    changes = []
    for alpha in (0.1, 0.2):
        with intervene(llava.model, PAI(alpha=alpha, gamma=1.0, layers=[0])) as session:
            session.forward(**inputs)
            changes.append(session.activity[0].change[:, 0])
    torch.testing.assert_close(changes[1], 2 * changes[0])  # alpha |z|, where z is the same


def test_an_intervention_that_never_fires_is_an_error(llava: TinyLVLM) -> None:
    nothing_so_strong = VAR(dimensions=[3], threshold=7.9)
    inputs = llava.inputs(TEXTS)
    with pytest.raises(RuntimeError, match="var changed nothing in this session of 1 call,"):
        with intervene(llava.model, [PAY, nothing_so_strong]) as session:
            session.generate(**inputs, max_new_tokens=2)
    with intervene(llava.model, [PAY, nothing_so_strong], allow_inactive=True) as session:
        session.generate(**inputs, max_new_tokens=2)
        assert [one.active for one in session.activity] == [True, False]
        assert str(session.activity[1]) == "var: inactive"


def test_a_text_without_image_is_left_alone(llava: TinyLVLM) -> None:
    inputs = llava.inputs([[5, 6, 7]])
    plain = llava.model.generate(**inputs, max_new_tokens=3)
    with intervene(llava.model, [PAY, VHR()], allow_inactive=True) as session:
        assert torch.equal(session.generate(**inputs, max_new_tokens=3), plain)
        assert not any(one.active for one in session.activity)


# --- other ways to run it ---------------------------------------------------------------------------------------------


def test_the_models_own_generate_and_forward_are_followed_too(llava: TinyLVLM) -> None:
    inputs = llava.inputs(TEXTS)
    with intervene(llava.model, PAY) as session:
        expected = session.generate(**inputs, max_new_tokens=4)
    with intervene(llava.model, PAY) as session:
        assert torch.equal(llava.model.generate(**inputs, max_new_tokens=4), expected)
        assert session.activity[0].rows[:, 2].tolist() == [4, 4]
        with torch.no_grad():
            llava.model(**inputs)
        assert session.activity[0].rows[:, 2].tolist() == [1, 1]
        assert session.calls == 2


def test_paused_is_the_model_itself(llava: TinyLVLM) -> None:
    inputs = llava.inputs(TEXTS)
    plain = llava.model.generate(**inputs, max_new_tokens=3)
    with intervene(llava.model, PAY) as session:
        session.forward(**inputs)
        with session.paused():
            assert torch.equal(llava.model.generate(**inputs, max_new_tokens=3), plain)
        assert session.calls == 1 or session.activity  # the pause is no call
    assert session.calls == 1


def test_half_precision_keeps_its_dtype_and_stays_near(llava: TinyLVLM) -> None:
    tiny = tiny_lvlm("llava")
    inputs = tiny.inputs(TEXTS)
    with plant_sinks(tiny), intervene(tiny.model, [PAY, MOVE, VHR(), ACT(alpha=1.2)]) as session:
        exact = session.forward(**inputs).logits
    tiny.model.to(torch.bfloat16)
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
    with plant_sinks(tiny), intervene(tiny.model, [PAY, MOVE, VHR(), ACT(alpha=1.2)]) as session:
        rounded = session.forward(**half).logits
    assert rounded.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rounded[:, -1].float(), exact[:, -1]).min() > 0.9


def test_sampling_goes_through_the_methods(llava: TinyLVLM) -> None:
    inputs = llava.inputs(TEXTS)
    options = {"max_new_tokens": 8, "do_sample": True, "temperature": 1.5}

    def sample(*interventions: Any) -> Tensor:
        torch.manual_seed(0)
        with intervene(llava.model, interventions) as session:
            return session.generate(**inputs, **options)

    torch.manual_seed(0)
    plain = llava.model.generate(**inputs, **options)
    assert torch.equal(sample(), plain)
    assert not torch.equal(sample(VDD(alpha=2.0)), sample())
    assert torch.equal(sample(PAY), sample(PAY))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("mllama", "reads the image by cross-attention"),
        ("qwen3_5", "linear attention"),
        ("llama", "does not accept images"),
    ],
)
def test_models_whose_attention_cannot_be_edited_are_refused(family: str, words: str) -> None:
    tiny = tiny_lvlm(family)
    with pytest.raises(ValueError, match=words), intervene(tiny.model, PAY):
        pass
    assert tiny.text_stack.config._attn_implementation == "sdpa"


def test_forced_flash_attention_is_refused() -> None:
    tiny = tiny_lvlm("llava")
    tiny.text_stack.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"flash_attention_2.*attn_implementation='sdpa'"), intervene(tiny.model, PAY):
        pass


def test_a_compiled_model_is_refused() -> None:
    tiny = tiny_lvlm("llava")
    tiny.model.compile()
    with pytest.raises(ValueError, match="compiled"), intervene(tiny.model, PAY):
        pass


@pytest.mark.parametrize(
    "option", [{"use_cache": False}, {"prefill_chunk_size": 4}, {"prompt_lookup_num_tokens": 3}, {"assistant_model": 1}]
)
def test_ways_of_decoding_that_cannot_be_followed_are_refused(llava: TinyLVLM, option: dict[str, Any]) -> None:
    with intervene(llava.model, PAY, allow_inactive=True) as session:
        with pytest.raises(ValueError, match=f"generate\\({next(iter(option))}"):
            session.generate(**llava.inputs(TEXTS), **option)


def test_padding_on_the_right_is_refused(llava: TinyLVLM) -> None:
    inputs = llava.inputs([[5, IMAGE, 7, 8]])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[PAD]])], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.tensor([[0]])], dim=1)
    with intervene(llava.model, PAY, allow_inactive=True) as session:
        with pytest.raises(ValueError, match="pad them on the left"):
            session.generate(**inputs, max_new_tokens=1)


def test_a_cache_from_outside_is_refused(llava: TinyLVLM) -> None:
    inputs = llava.inputs([[5, IMAGE, 7, 8]])
    cache = DynamicCache()
    with torch.no_grad():
        llava.model(**inputs, cache=cache)
    with (
        intervene(llava.model, PAY, allow_inactive=True),
        pytest.raises(ValueError, match="filled outside the session"),
    ):
        llava.model(input_ids=torch.tensor([[3]]), cache=cache)


def test_embeddings_without_ids_are_refused(llava: TinyLVLM) -> None:
    embeddings = torch.zeros(1, 3, 64)
    with intervene(llava.model, PAY, allow_inactive=True):
        with pytest.raises(ValueError, match="input_ids, which are missing"):
            llava.model(inputs_embeds=embeddings)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("9", "layer 9 .* does not exist; the model has 4 layers, 0 to 3"),
        ("2:2", "select none"),
        ("two", "cannot parse"),
    ],
)
def test_layers_that_do_not_exist_are_named(llava: TinyLVLM, layers: str, words: str) -> None:
    with intervene(llava.model, PAI(layers=layers), allow_inactive=True) as session:
        with pytest.raises(ValueError, match=words):
            session.generate(**llava.inputs(TEXTS), max_new_tokens=1)
    assert llava.text_stack.config._attn_implementation == "sdpa"


def test_something_that_is_no_intervention_is_refused(llava: TinyLVLM) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=r"is not an intervention|parameter 'interventions'"
    ):  # the tests check types too
        with intervene(llava.model, ["var"]):  # type: ignore[list-item]
            pass


def test_another_thread_is_refused(llava: TinyLVLM) -> None:
    raised: list[BaseException] = []

    def other() -> None:
        try:
            with intervene(llava.model, PAY, allow_inactive=True):
                pass
        except RuntimeError as error:
            raised.append(error)

    with intervene(llava.model, PAY, allow_inactive=True):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread" in str(raised[0])


def test_an_intervention_of_ones_own_needs_a_name_and_begin(llava: TinyLVLM) -> None:
    class Mute:
        name = "mute"

        def begin(self, call: Any) -> Edit:
            heads = torch.tensor([1.0, 1.0, 0.0, 1.0]).expand(call.image.shape[0], 4)
            return Edit(layers=[0], scale_heads=lambda layer, output: heads)

    with intervene(llava.model, Mute()) as session:
        session.generate(**llava.inputs(TEXTS), max_new_tokens=2)
        lengths = [len(text) + 3 + 1 for text in TEXTS]  # an image is four tokens; one new token is read
        assert session.activity[0].heads[:, 0].tolist() == lengths


@pytest.mark.parametrize(
    ("words", "expected"), [("all", [0, 1, 2, 3]), ("-2:", [2, 3]), ("0,-1", [0, 3]), ("1:3", [1, 2])]
)
def test_layers_are_read_as_slices_and_lists(words: str, expected: list[int]) -> None:
    assert layer_indices(words, 4) == expected
