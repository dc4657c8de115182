"""Attention pooling by blocks is attention pooling."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from regard.heads import attention_pool as file
from regard.heads.attention_pool import HIDDEN, Scorer, attention_pool


def plain(bag: Tensor, valid: Tensor | None, projection: nn.Linear, scorer: Scorer) -> tuple[Tensor, Tensor]:
    hidden = projection(bag).relu()
    product = scorer.value(hidden).tanh()
    if scorer.gate is not None:
        product = product * scorer.gate(hidden).sigmoid()
    scores = scorer.score(product).transpose(1, 2)
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None], -torch.inf)
    return scores.softmax(dim=-1) @ hidden, scores


def layers(gated: bool, maps: int = 2, bias: bool = True) -> tuple[nn.Linear, Scorer]:
    torch.manual_seed(0)
    projection = nn.Linear(6, 5, bias=bias)
    return projection, Scorer(nn.Linear(5, 4), nn.Linear(5, 4) if gated else None, nn.Linear(4, maps))


def weights_of(projection: nn.Linear, scorer: Scorer) -> list[Tensor]:
    return [weight for layer in (projection, *scorer) if layer is not None for weight in layer.parameters()]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_what_the_paper_writes(gated: bool, rows: int, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(file._ROWS, "cpu", 2 * rows)
    projection, scorer = layers(gated)
    bag = torch.randn(2, 10, 6, requires_grad=True)
    valid = None
    if padded:
        valid = torch.ones(2, 10, dtype=torch.bool)
        valid[0, :4], valid[1, 7:] = False, False
    found = []
    for pool in (plain, attention_pool):
        features, scores = pool(bag, valid, projection, scorer)
        loss = features.sin().sum() + (scores.softmax(dim=-1) * torch.arange(10.0)).square().sum()
        gradients = torch.autograd.grad(loss, [bag, *weights_of(projection, scorer)])
        found.append([features, scores, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("hides", [pytest.param(False, marks=pytest.mark.full), True])
def test_gradients_hold_with_dropout_and_hidden_instances(gated: bool, chunk: int | None, hides: bool) -> None:
    projection, scorer = layers(gated, bias=False)
    weights = weights_of(projection.double(), Scorer(*(layer and layer.double() for layer in scorer)))
    bag = torch.randn(2, 7, 6, dtype=torch.double, requires_grad=True)
    valid = torch.arange(7) < torch.tensor([[5], [7]])

    def of(bag: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        hide = (lambda scores: scores >= scores.topk(2).values[..., -1:]) if hides else None
        pooled = attention_pool(
            bag, valid, projection, scorer, drop_rate=0.3, score_drop_rate=0.2, hide=hide, chunk=chunk
        )
        return pooled.features, pooled.scores.softmax(dim=-1)

    assert torch.autograd.gradcheck(of, (bag, *weights), fast_mode=True)


def test_dropout_keeps_the_mean_and_hides_its_share() -> None:
    torch.manual_seed(0)
    projection, scorer = layers(True, maps=1)
    bag = torch.ones(1, 20000, 6)
    kept = attention_pool(bag, None, projection, scorer).features
    dropped = attention_pool(bag, None, projection, scorer, drop_rate=0.4).features
    torch.testing.assert_close(dropped, kept, rtol=0.1, atol=0)


def test_hidden_instances_weigh_nothing() -> None:
    projection, scorer = layers(True)
    bag = torch.randn(1, 6, 6)
    hidden = torch.zeros(1, 2, 6, dtype=torch.bool)
    hidden[0, 0, 2] = True
    features, scores = attention_pool(bag, None, projection, scorer, hide=lambda _: hidden)
    assert (scores == HIDDEN).nonzero().tolist() == [[0, 0, 2]]
    without = plain(bag[:, [0, 1, 3, 4, 5]], None, projection, scorer)[0]
    torch.testing.assert_close(features[:, 0], without[:, 0])
    torch.testing.assert_close(features[:, 1], plain(bag, None, projection, scorer)[0][:, 1])


def test_if_all_are_hidden_all_weigh_the_same_but_padding() -> None:
    projection, scorer = layers(True)
    bag, valid = torch.randn(1, 6, 6), torch.arange(6)[None] < 4
    features, scores = attention_pool(bag, valid, projection, scorer, hide=lambda scores: scores > -torch.inf)
    expected = projection(bag).relu()[:, :4].mean(dim=1)
    torch.testing.assert_close(features[:, 0], expected)
    torch.testing.assert_close(scores.softmax(dim=-1)[0, 0], torch.tensor([0.25] * 4 + [0.0] * 2))
    for chunk in (1, 4):
        again = attention_pool(bag, valid, projection, scorer, hide=lambda scores: scores > -torch.inf, chunk=chunk)
        torch.testing.assert_close(again.features, features)


def test_high_scores_do_not_overflow() -> None:
    projection, scorer = layers(False, maps=1)
    scorer.score.weight.data.fill_(1e4)
    features, scores = attention_pool(torch.randn(1, 9, 6), None, projection, scorer, chunk=2)
    assert scores.abs().max() > 100
    assert features.isfinite().all()


def test_nothing_of_all_layers_but_the_projection_is_kept() -> None:
    projection, scorer = layers(True)
    for chunk, most in ((None, 64 * 5), (16, 64 * 2)):
        bag = torch.randn(1, 64, 6)
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=saved: s.append(x) or x, lambda x: x):
            attention_pool(bag, None, projection, scorer, chunk=chunk)
        sizes = sorted(x.numel() for x in saved if x.data_ptr() != bag.data_ptr() and x.shape[0] in (1, 64))
        assert all(one <= other for one, other in pairwise(sizes))
        assert sizes[-1] <= most


def test_a_chunk_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk is 0; give the number"):
        file.check_chunk(0)
