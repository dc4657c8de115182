"""ACMIL beside a plain formulation of it, for other sizes, branches and draws than the authors' numbers have."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from all_heads import DIM, bags
from torch import Tensor, nn

from regard.heads import BagOutput, build_head, stkim


def plain_losses(head: nn.Module, bag: Tensor, label: Tensor, drawn: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """One bag, instance by instance as the paper has it."""
    hidden = head.dimreduction(bag)
    scores = head.attention(hidden)  # branches instances
    if drawn is not None:
        count = min(head.top, scores.shape[1])
        for branch, draw in enumerate(drawn):
            places = scores[branch].topk(count).indices[draw.argsort()[: int(count * head.hide_rate)]]
            scores = scores.index_put((torch.tensor(branch), places), torch.tensor(-1e9))
    weights = scores.softmax(dim=-1)
    branches = torch.stack([layer(weights[i] @ hidden) for i, layer in enumerate(head.classifier)])
    losses = {"branches": F.cross_entropy(branches, label.expand(len(branches)))}
    pairs = list(itertools.combinations(weights, 2))
    losses["diversity"] = sum(F.cosine_similarity(a, b, dim=0) for a, b in pairs) / max(1, len(pairs))
    return head.Slide_classifier(weights.mean(dim=0) @ hidden), losses


@pytest.mark.parametrize("branches", [2, 4])
@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_what_the_paper_writes(branches: int, count: int, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = build_head("acmil", DIM, classes, width=16, hidden=8, branches=branches, top=7, hide_rate=0.5).train()
    drawn = torch.rand(branches, min(7, count))
    monkeypatch.setattr(stkim, "draw", lambda shape, _: drawn.reshape(shape))
    bag, label = bags(count), torch.tensor(classes - 1)
    output = head(bag, labels=label)
    logits, losses = plain_losses(head, bag, label, drawn)
    torch.testing.assert_close(output.logits, logits)
    assert output.losses.keys() == losses.keys()
    for name, expected in losses.items():
        torch.testing.assert_close(output.losses[name], expected)
    whole = F.cross_entropy(logits, label) + sum(losses.values())
    gradients = torch.autograd.grad(whole, list(head.parameters()))
    for found, expected in zip(
        torch.autograd.grad(output.loss(label), list(head.parameters())), gradients, strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_losses_of_a_batch_are_means_over_its_bags() -> None:
    torch.manual_seed(0)
    head = build_head("acmil", DIM, 3, width=16).eval()
    bag, labels = bags(4, 10), torch.tensor([0, 1, 2, 1])
    together = head(bag, labels=labels)
    each = [head(bag[i], labels=labels[i]) for i in range(4)]
    for name in ("branches", "diversity"):
        torch.testing.assert_close(together.losses[name], torch.stack([one.losses[name] for one in each]).mean())


@pytest.mark.parametrize("name", ["acmil", "acmil_mha"])
def test_a_lone_branch_has_no_losses_and_nothing_that_does_not_learn(name: str) -> None:
    head = build_head(name, DIM, 2, width=16, branches=1)
    output = head(bags(9), labels=torch.tensor(1))
    assert not output.losses
    output.loss(torch.tensor(1)).backward()
    assert all(weight.grad is not None for weight in head.parameters() if weight.requires_grad)


@pytest.mark.parametrize("name", ["acmil", "acmil_mha"])
def test_masking_is_for_training_only(name: str) -> None:
    torch.manual_seed(0)
    head = build_head(name, DIM, 2, width=16, top=5, hide_rate=1.0)
    bag = bags(30)
    assert (head.train()(bag).attention == 0).sum(dim=-1).eq(5).all()
    assert not (head.eval()(bag).attention == 0).any()


@pytest.mark.parametrize(("heads", "count"), [(2, 9), (4, 30)])
def test_multi_head_branches_are_multi_head_attention(heads: int, count: int) -> None:
    torch.manual_seed(0)
    head = build_head("acmil_mha", DIM, 3, width=16, heads=heads, branches=3).eval()
    nn.init.normal_(head.q)
    bag = bags(count)
    instances = head.dimreduction(bag)
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(-2, -3)  # noqa: E731
    weights, vectors = [], []
    for branch, layer in enumerate(head.sub_attention):
        query, key, value = layer.q_proj(head.q[0, branch]), layer.k_proj(instances), layer.v_proj(instances)
        scores = split(query[None]) @ split(key).mT / (16 // heads) ** 0.5  # heads 1 instances
        weights.append(scores.softmax(dim=-1))
        read = (weights[-1] @ split(value)).transpose(0, 1).flatten()
        vectors.append(head.classifier[branch](layer.layer_norm(layer.out_proj(read))))
    last = head.bag_attention
    read = (torch.stack(weights).mean(dim=0) @ split(last.v_proj(instances))).transpose(0, 1).flatten()
    output: BagOutput = head(bag, labels=torch.tensor(1))
    torch.testing.assert_close(output.attention, torch.cat(weights)[:, 0], rtol=1e-4, atol=1e-6)
    expected = head.Slide_classifier(last.layer_norm(last.out_proj(read)))
    torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.losses["branches"], F.cross_entropy(torch.stack(vectors), torch.tensor([1] * 3)))


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="branches is 0"):
        build_head("acmil", DIM, 2, branches=0)
    with pytest.raises(ValueError, match="3 heads cannot share a width of 16"):
        build_head("acmil_mha", DIM, 2, width=16, heads=3)
