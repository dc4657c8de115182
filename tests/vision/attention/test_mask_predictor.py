import pytest
import torch
from torch import nn

from regard.vision.attention.mask_predictor import MaskPredictor, resize_table


@pytest.mark.parametrize("gather", [False, True])
def test_dropped_tokens_are_not_chosen(gather: bool) -> None:
    torch.manual_seed(0)
    predictor = MaskPredictor(20, 8, gather=gather)
    valid = torch.rand(2, 20) < 0.6
    tokens = torch.randn(3, 2, 2, 20, 8) * valid[:, None, :, None]
    found = predictor.connections(*tokens[:2], valid=valid, budget=5)
    assert not (found.mask & ~valid[:, None, None]).any()
    assert predictor(*tokens, valid=valid, budget=5).isfinite().all()


def test_tables_keep_their_prefix_when_resized() -> None:
    table = torch.rand(1 + 12, 4)
    resized = resize_table(table, (3, 4), (6, 2), prefix=1)
    assert torch.equal(resized[:1], table[:1])
    assert resize_table(table, (3, 4), (3, 4), prefix=1) is table
    constant = resize_table(torch.ones(12, 2), (3, 4), (5, 5))
    torch.testing.assert_close(constant, torch.ones(25, 2))


def test_a_tied_table_stays_tied_when_resized() -> None:
    predictor = MaskPredictor(10, 8, tied=True)
    predictor.resize((3, 3), (4, 4), prefix=1)
    assert predictor.proj_back_n is predictor.proj_n
    assert len(predictor.proj_n) == 17


def test_what_is_not_kept_changes_nothing() -> None:
    torch.manual_seed(0)
    predictor = MaskPredictor(50, 16)
    for parameter in predictor.parameters():
        nn.init.normal_(parameter)
    query, key, value = torch.randn(3, 1, 2, 50, 16).unbind()
    unseen = ~predictor.connections(query, key).mask
    query_at, key_at = unseen[0, 0].nonzero()[0]
    other = value.clone()
    other[0, 0, key_at] += 100
    before, after = predictor(query, key, value), predictor(query, key, other)
    torch.testing.assert_close(after[0, 0, query_at], before[0, 0, query_at])
    assert not torch.allclose(after[0, 0], before[0, 0])
