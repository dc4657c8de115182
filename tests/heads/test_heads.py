"""What the contract promises of every head."""

from __future__ import annotations

import copy

import pytest
import torch
from all_heads import DIM, EVERY, EVERY_CHUNKED, ORDERLESS, bags, cells, small
from torch import nn

from regard.heads import AEM
from regard.heads.contract import BagOutput

every_head = pytest.mark.parametrize("case", EVERY)
full = pytest.mark.full


def same(one: BagOutput, other: BagOutput, **tolerance: float) -> None:
    torch.testing.assert_close(one.logits, other.logits, **tolerance)
    if one.attention is not None:
        torch.testing.assert_close(one.attention, other.attention, **tolerance)


@every_head
def test_a_bag_is_a_batch_of_one(case: str) -> None:
    head, bag = small(case).eval(), bags(20)
    alone, batch = head(bag), head(bag[None])
    assert alone.logits.shape == (3,)
    torch.testing.assert_close(alone.logits, batch.logits[0])
    if alone.attention is not None:
        assert alone.attention.shape[1:] == (20,)
        torch.testing.assert_close(alone.attention, batch.attention[0])


@every_head
def test_bags_do_not_see_their_mates_nor_the_padding(case: str) -> None:
    head, first, second = small(case).eval(), bags(11), bags(17, seed=2)
    batch = torch.full((2, 19, DIM), torch.nan)
    valid = torch.zeros(2, 19, dtype=torch.bool)
    batch[0, 3:14], valid[0, 3:14] = first, True
    batch[1, [*range(10), *range(12, 19)]] = second
    valid[1, [*range(10), *range(12, 19)]] = True
    together = head(batch, valid)
    for index, bag in enumerate((first, second)):
        alone = head(bag)
        torch.testing.assert_close(together.logits[index], alone.logits, rtol=1e-4, atol=1e-5)
        if alone.attention is not None:
            found = together.attention[index]
            torch.testing.assert_close(found[:, valid[index]], alone.attention, rtol=1e-4, atol=1e-6)
            assert (found[:, ~valid[index]] == 0).all()


@pytest.mark.parametrize("case", cells(ORDERLESS))
def test_the_order_of_instances_does_not_matter(case: str) -> None:
    head, bag = small(case).eval(), bags(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    one, other = head(bag), head(bag[order])
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-5)
    if one.attention is not None:
        torch.testing.assert_close(one.attention[:, order], other.attention, rtol=1e-4, atol=1e-5)


@every_head
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=full), pytest.param(7, marks=full), 20])
def test_attention_is_a_share_of_each_instance(case: str, count: int, training: bool) -> None:
    head = small(case).train(training)
    output = head(bags(2, count))
    assert output.logits.isfinite().all()
    if output.attention is None:
        with pytest.raises(ValueError, match="no attention"):
            output.mean_attention()
        return
    assert (output.attention >= 0).all()
    torch.testing.assert_close(output.attention.sum(dim=-1), torch.ones(output.attention.shape[:2]))
    torch.testing.assert_close(output.mean_attention().sum(dim=-1), torch.ones(2))


@every_head
def test_gradients_reach_every_weight_that_learns(case: str) -> None:
    head, labels = small(case).train(), torch.tensor([0, 1, 2])
    output = head(bags(3, 20), labels=labels)
    output.loss(labels).backward()
    without = {name for name, weight in head.named_parameters() if weight.requires_grad and weight.grad is None}
    assert not without
    assert all(weight.grad.isfinite().all() for weight in head.parameters() if weight.requires_grad)


@every_head
def test_a_loss_falls_in_a_few_steps(case: str) -> None:
    head, bag, labels = small(case).train(), bags(6, 20), torch.tensor([0, 1, 2, 0, 1, 2])
    bag = bag + labels[:, None, None]
    optimiser = torch.optim.Adam([weight for weight in head.parameters() if weight.requires_grad], lr=2e-2)

    def error() -> float:
        with torch.no_grad():
            return nn.functional.cross_entropy(head.eval()(bag).logits, labels).item()

    before = error()
    for _ in range(15):
        optimiser.zero_grad()
        head.train()(bag, labels=labels).loss(labels).backward()
        optimiser.step()
        getattr(head, "after_step", lambda: None)()
    assert error() < 0.8 * before


@every_head
def test_half_precision_does_not_overflow(case: str) -> None:
    head = small(case).eval()
    bag, valid = bags(2, 20), torch.ones(2, 20, dtype=torch.bool)
    valid[0, 15:] = False
    whole = head(bag, valid)
    half = copy.deepcopy(head).bfloat16()(bag.bfloat16(), valid)
    torch.testing.assert_close(half.logits.float(), whole.logits, rtol=0.1, atol=0.15)
    output = copy.deepcopy(head).half()(bag.half(), valid)
    torch.testing.assert_close(output.logits.float(), whole.logits, rtol=0.02, atol=0.03)
    if output.attention is not None:
        assert output.attention.isfinite().all()
        assert AEM()(output, valid=valid).isfinite()


@every_head
def test_half_features_suit_whole_weights(case: str) -> None:
    head, bag = small(case).eval(), bags(20).half()
    same(head(bag), head(bag.float()))


@every_head
def test_autocast_changes_little(case: str) -> None:
    head, bag, labels = small(case).train(), bags(2, 20), torch.tensor([0, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(bag, labels=labels)
        loss = output.loss(labels)
    loss.backward()
    head.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(bag).logits.float()
    torch.testing.assert_close(found, head(bag).logits, rtol=0.1, atol=0.15)


@every_head
def test_a_saved_head_is_itself_again(case: str) -> None:
    head, bag = small(case), bags(20)
    for weight in head.parameters():
        weight.data.normal_(std=0.2)
    again = small(case)
    again.load_state_dict(head.state_dict())
    same(again.eval()(bag), head.eval()(bag))


@pytest.mark.parametrize("case", ["abmil", "dtfd"])
@pytest.mark.parametrize(
    ("bag", "message"),
    [
        (torch.zeros(0, DIM), "an empty bag"),
        (torch.zeros(2, 0, DIM), "an empty bag"),
        (torch.zeros(4, DIM + 1), f"features have width {DIM + 1}"),
        (torch.zeros(2, 3, 4, DIM), "a bag has shape"),
    ],
    ids=["empty", "empty batch", "width", "grid"],
)
def test_a_bag_of_a_wrong_shape_is_refused(case: str, bag: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(case).eval()(bag)


@every_head
def test_a_feature_that_is_not_finite_is_named(case: str) -> None:
    head, bag = small(case).eval(), bags(2, 20)
    bag[1, 7, 3] = torch.nan
    with pytest.raises(ValueError, match=r"1 instances have features .* instance 7 of bag 1"):
        head(bag)
    with pytest.raises(ValueError, match="the first is instance 7;"):
        head(bag[1])


@pytest.mark.parametrize("case", EVERY_CHUNKED)
@pytest.mark.parametrize("chunk", [pytest.param(1, marks=full), 6, pytest.param(64, marks=full)])
def test_chunks_give_the_numbers_and_gradients_of_the_whole(case: str, chunk: int) -> None:
    labels = torch.tensor([0, 2])
    valid = torch.ones(2, 20, dtype=torch.bool)
    valid[0, :7] = False
    found = []
    for size in (None, chunk):
        head = small(case, chunk=size).train()
        for part in head.modules():
            part.drop_rate = 0.0
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        bag = bags(2, 20).requires_grad_()
        torch.manual_seed(0)  # STKIM draws alike
        output = head(bag, valid, labels=labels)
        loss = output.loss(labels) + (AEM()(output) if output.attention is not None else 0)
        loss.backward()
        gradients = [weight.grad for weight in head.parameters() if weight.grad is not None]
        found.append([output.logits.detach(), loss.detach(), bag.grad, *gradients])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cells(["mean", "max", "abmil", "abmil_plain", "clam_sb", "clam_sb_plain", "clam_mb"]))
def test_dropout_repeats_itself_in_chunks(case: str) -> None:
    head = small(case, chunk=3, drop_rate=0.5).double().train()
    bag = bags(8).double().requires_grad_()

    def of(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return head(x).logits

    assert torch.autograd.gradcheck(of, (bag,), fast_mode=True)


@pytest.mark.parametrize(
    "case",
    [
        "abmil",
        "dsmil",
        *(pytest.param(case, marks=full) for case in ("mean", "abmil_mha", "clam_mb", "acmil", "ibmil")),
    ],
)
def test_a_share_of_a_large_bag_survives_half_precision(case: str) -> None:
    head, bag = small(case).eval(), bags(200_000)
    whole = head(bag)
    output = copy.deepcopy(head).half()(bag.half())
    torch.testing.assert_close(output.logits.float(), whole.logits, rtol=0.02, atol=0.02)
