"""Which image token a patch belongs to, found out by changing one patch at a time; and what the tower's scores are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_lvlms import IMAGE, TinyLVLM, by_kind, tiny_lvlm
from torch import Tensor, nn

from regard.mllm.interventions.rebalance import outliers, strongest
from regard.mllm.session import saliency
from regard.mllm.session.saliency import (
    TOKENS_OF_PATCHES,
    image_features,
    image_saliency,
    tower_layers,
    vision_tower,
)

FAMILIES = sorted(TOKENS_OF_PATCHES)


def first_layer(tower: nn.Module) -> nn.Module:
    attention = tower_layers(tower)[0]
    holders = [module for module in tower.modules() if attention in module.children()]
    return holders[0]


def many_windows() -> tuple[TinyLVLM, dict[str, Tensor]]:
    """Qwen2.5-VL with an image of several windows, whose patches its tower puts in another order."""
    tiny = tiny_lvlm("qwen2_5_vl")
    tiny.model.config.vision_config.window_size = 56
    vision_tower(tiny.model).window_size = 56
    width = tiny.inputs([[5, IMAGE]])["pixel_values"].shape[1]
    pixels = torch.randn(8 * 12, width, generator=torch.Generator().manual_seed(0))
    return tiny, {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 8, 12]])}


@pytest.mark.parametrize("family", [*by_kind(one for one in FAMILIES if one != "instructblip"), "several windows"])
def test_a_patch_belongs_to_the_token_that_changes_with_it(family: str) -> None:
    if family == "several windows":
        family = "qwen2_5_vl"
        tiny, inputs = many_windows()
    else:
        tiny = tiny_lvlm(family)
        inputs = tiny.inputs([[5, IMAGE, 7], [6, 5, IMAGE, 8]], images=(0, 1))
    tower = vision_tower(tiny.model)
    for attention in tower_layers(tower):  # then every patch keeps to itself
        out = next(
            child
            for name, child in attention.named_children()
            if name in ("out_proj", "o_proj", "proj", "projection_layer")
        )
        nn.init.zeros_(out.weight)
    layers = tower_layers(tower)
    with torch.no_grad(), saliency._watching([tower], {layers[0]: "received"}) as seen:
        before = image_features(tiny.model, inputs)
    shapes = [part.shape for part in seen[layers[0]]]  # of every call
    cls = int(saliency._has_class_token(tower))
    patches = [
        (call, row, position)
        for call, shape in enumerate(shapes)
        for row in range(shape[0])
        for position in range(cls, shape[1])
    ]
    total = sum(shape[0] * (shape[1] - cls) for shape in shapes)
    for index in range(0, total, 3):
        call, row, position = patches[index]

        def nudge(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], flat: int = index) -> Any:
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            tokens = hidden.reshape(-1, hidden.shape[-1])
            width = hidden.shape[-2]
            at = flat if cls == 0 else flat // (width - 1) * width + flat % (width - 1) + 1
            tokens[at] += torch.linspace(-3, 3, hidden.shape[-1])
            hidden = tokens.view(hidden.shape)
            return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

        handle = first_layer(tower).register_forward_pre_hook(nudge, with_kwargs=True)
        with torch.no_grad():
            after = image_features(tiny.model, inputs)
        handle.remove()
        scores = [torch.zeros(shape[0], shape[1] - cls) for shape in shapes]
        scores[call][row, position - cls] = 1.0
        mapped = TOKENS_OF_PATCHES[family](tiny.model, scores, inputs)
        changed = (after - before).abs().amax(dim=-1) > 1e-4
        assert changed.any()
        assert torch.equal(mapped > 0, changed), (index, mapped, changed)


@pytest.mark.parametrize("family", by_kind(FAMILIES))
def test_scores_lie_on_image_tokens_and_do_not_depend_on_the_batch(family: str) -> None:
    tiny = tiny_lvlm(family)
    texts = [[5, IMAGE, 7], [6, 5, 4, IMAGE, 8]]
    inputs = tiny.inputs(texts, images=(0, 1))
    image = inputs["input_ids"] == IMAGE
    together = image_saliency(tiny.model, inputs, image)
    for scores in together:
        assert (scores[~image] == 0).all()
        assert scores[image].std() > 0
    for seed, text in enumerate(texts):
        alone = tiny.inputs([text], images=(seed,))
        mine = image_saliency(tiny.model, alone, alone["input_ids"] == IMAGE)
        for one, both in zip(mine, together, strict=True):
            torch.testing.assert_close(one[0], both[seed, -one.shape[1] :], rtol=1e-4, atol=1e-6)
    assert vision_tower(tiny.model).config._attn_implementation == "sdpa"


def test_scores_are_the_class_tokens_attention_of_the_eager_tower() -> None:
    tiny = tiny_lvlm("llava")
    inputs = tiny.inputs([[5, IMAGE, 7]])
    image = inputs["input_ids"] == IMAGE
    found = image_saliency(tiny.model, inputs, image)
    tower = vision_tower(tiny.model)
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        maps = tower(inputs["pixel_values"], output_attentions=True).attentions
    torch.testing.assert_close(found.first[image], maps[0][0, :, 0, 1:].sum(dim=0))
    torch.testing.assert_close(found.last[image], maps[-2][0, :, 0, 1:].sum(dim=0))


def test_an_unknown_family_is_named() -> None:
    tiny = tiny_lvlm("mllama")
    with pytest.raises(ValueError, match="not known for 'mllama'; known: gemma3"):
        image_saliency(tiny.model, {}, torch.zeros(1, 3, dtype=torch.bool))


def test_outliers_and_strongest_are_those_of_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 60, generator=generator) ** 3
    among = torch.rand(20, 60, generator=generator) < 0.8
    for row, mine, own in zip(scores, among, outliers(scores, among), strict=True):
        values = row[mine]
        low, high = values.quantile(0.25), values.quantile(0.75)
        assert torch.equal(own, mine & (row > high + 1.5 * (high - low)))
    for row, mine, own in zip(scores, among, strongest(scores, among, 0.25), strict=True):
        count = int(0.25 * int(mine.sum()))
        assert int(own.sum()) == count
        assert row[own].min() >= row[mine & ~own].max()
