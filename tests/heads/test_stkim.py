"""Which of the highest instances STKIM hides."""

from __future__ import annotations

import pytest
import torch

from regard.heads.stkim import check_stkim, top_instances_to_hide


@pytest.mark.parametrize(
    ("count", "top", "rate", "hidden"),
    [(64, 10, 0.6, 6), (6, 10, 0.6, 3), (1, 10, 0.6, 0), (1, 10, 1.0, 1), (9, 4, 0.5, 2), (9, 3, 0.0, 0)],
)
def test_so_many_of_the_highest_are_hidden(count: int, top: int, rate: float, hidden: int) -> None:
    scores = torch.randn(2, 5, count)
    found = top_instances_to_hide(scores, top, rate)
    assert (found.sum(dim=-1) == hidden).all()
    among = scores >= scores.topk(min(top, count)).values[..., -1:]
    assert (found <= among).all()


def test_padding_is_never_chosen_and_a_short_bag_has_its_own_count() -> None:
    scores = torch.randn(2, 3, 20)
    scores[0, :, 5:] = -torch.inf
    found = top_instances_to_hide(scores, 10, 0.6)
    assert (found[0].sum(dim=-1) == 3).all()
    assert not found[0, :, 5:].any()
    assert (found[1].sum(dim=-1) == 6).all()


def test_maps_draw_for_themselves_and_anew() -> None:
    torch.manual_seed(0)
    scores = torch.arange(40.0).expand(1, 8, 40)
    first, second = (top_instances_to_hide(scores, 10, 0.5) for _ in range(2))
    assert len({tuple(row.nonzero()[:, 0].tolist()) for row in first[0]}) > 1
    assert not torch.equal(first, second)


def test_each_of_the_highest_is_hidden_at_the_rate() -> None:
    torch.manual_seed(0)
    scores = torch.arange(30.0).expand(1, 4000, 30)
    share = top_instances_to_hide(scores, 10, 0.6)[0].float().mean(dim=0)
    torch.testing.assert_close(share[20:], torch.full((10,), 0.6), rtol=0, atol=0.04)


@pytest.mark.parametrize(("top", "rate"), [(-1, 0.5), (10, 1.5), (10, -0.1)])
def test_options_out_of_range_are_named(top: int, rate: float) -> None:
    with pytest.raises(ValueError, match=f"top is {top} and hide_rate is {rate}"):
        check_stkim(top, rate)
