"""What VAR claims: sinks give, the image's other tokens get, rows still sum to one, and all else stays."""

from __future__ import annotations

import pytest
import torch
from tiny_lvlms import IMAGE, tiny_lvlm

from regard.mllm import LVLM, intervene
from regard.mllm.interventions.var import VAR, SinkColumns, redistributed
from regard.mllm.session.sinks import SINKS, Sinks, discover_sinks, sink_strength, sinks_of

IMAGE_COLUMNS = torch.tensor([[False, True, True, True, True, False]])
SINK_COLUMNS = torch.tensor([[True, True, False, False, False, False]])
OPTIONS = {"transfer": 0.6, "min_image": 0.2, "min_free": 0.5}


def test_sinks_give_what_the_images_other_tokens_get() -> None:
    weights = torch.rand(1, 4, 3, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)
    new, edited = redistributed(weights, SinkColumns.of(IMAGE_COLUMNS, SINK_COLUMNS, **OPTIONS))
    assert edited.all()
    torch.testing.assert_close(new.sum(-1), torch.ones(1, 4, 3))
    torch.testing.assert_close(new[..., :2], 0.4 * weights[..., :2])
    torch.testing.assert_close(new[..., 5], weights[..., 5])
    gained = new[..., 2:5] / weights[..., 2:5]
    torch.testing.assert_close(gained, gained[..., :1].expand_as(gained))  # in proportion to what they had


@pytest.mark.parametrize(
    "row",
    [[0.9, 0.02, 0.02, 0.02, 0.02, 0.02], [0.1, 0.7, 0.05, 0.03, 0.02, 0.1]],
    ids=["does not look at the image", "looks at its sinks alone"],
)
def test_a_head_that_does_not_look_at_the_image_beyond_its_sinks_is_left_alone(row: list[float]) -> None:
    weights = torch.tensor(row)[None, None, None]
    new, edited = redistributed(weights, SinkColumns.of(IMAGE_COLUMNS, SINK_COLUMNS, **OPTIONS))
    assert not edited.any()
    assert torch.equal(new, weights)


def test_no_attention_to_free_columns_gives_no_nan() -> None:
    weights = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0, 0.0])[None, None, None]
    columns = SinkColumns.of(IMAGE_COLUMNS, SINK_COLUMNS, transfer=0.6, min_image=0.0, min_free=0.0)
    assert torch.equal(redistributed(weights, columns)[0], weights)


def test_only_rows_that_may_be_edited_are() -> None:
    weights = torch.rand(1, 2, 3, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)
    rows = torch.tensor([[[False, True, True]]])
    new, edited = redistributed(weights, SinkColumns.of(IMAGE_COLUMNS, SINK_COLUMNS, **OPTIONS), rows)
    assert torch.equal(new[:, :, 0], weights[:, :, 0])
    assert not edited[:, :, 0].any()
    assert edited[:, :, 1:].all()


def test_the_strength_of_a_sink_is_at_most_the_root_of_the_width() -> None:
    assert sink_strength(torch.eye(64)[3:4] * 1e4, [3]).item() == pytest.approx(8.0, rel=1e-4)
    assert sink_strength(torch.eye(64)[3:4] * 1e4, [4]).item() == 0


def test_a_model_without_known_sinks_is_told_how_to_find_them() -> None:
    tiny = tiny_lvlm("llava")
    with intervene(tiny.model, VAR(), allow_inactive=True) as session:
        with pytest.raises(
            ValueError, match=r"no sink dimensions are known for 'llama'.*discover_sinks.*var\(dimensions"
        ):
            session.generate(**tiny.inputs([[5, IMAGE, 6]]), max_new_tokens=1)


def test_a_threshold_that_no_token_can_reach_is_refused() -> None:
    tiny = tiny_lvlm("llava")
    with pytest.raises(ValueError, match=r"below 8\.0"):
        sinks_of(tiny.model, dimensions=[3])
    with pytest.raises(ValueError, match=r"\[64\] do not exist; the width is 64"):
        sinks_of(tiny.model, dimensions=[64], threshold=5.0)


def test_the_table_knows_its_models_by_kind_and_size() -> None:
    for (_, width, _), sinks in SINKS.items():
        assert all(0 <= dimension < width for dimension in sinks.dimensions)
        assert sinks.threshold < width**0.5


def test_the_embedded_models_sinks_are_those_of_its_configuration_and_are_found() -> None:
    lvlm = LVLM.load("embedded", device="cpu")
    inputs = lvlm.prepare([lvlm.example_image()], ["describe the image ."])
    known = sinks_of(lvlm.model)
    found = discover_sinks(lvlm.model, [inputs], threshold=known.threshold)
    assert found == Sinks(known.dimensions, known.threshold, "discovered")
    with intervene(lvlm.model, VAR()) as session:
        session.generate(**inputs, max_new_tokens=3)
        assert session.activity[0].active
        assert all(count[0] > 1 for count in session.details["var"]["image_sinks"].values())


@pytest.mark.parametrize("options", [{"transfer": 1.2}, {"min_free": -0.1}, {"threshold": 0.0}])
def test_values_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        VAR(**options)
