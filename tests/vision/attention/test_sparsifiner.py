import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention import mask_predictor
from regard.vision.attention.plain.sparsifiner import PlainSparsifinerAttention
from regard.vision.attention.sparsifiner import SparsifinerAttention

SIZES = [(1, 1), pytest.param(*(1, 9), marks=pytest.mark.full), pytest.param(*(7, 7), marks=pytest.mark.full), (5, 11)]


def image(height: int = 7, width: int = 7, batch: int = 2) -> Tensor:
    return torch.randn(batch, height, width, 32, generator=torch.Generator().manual_seed(0))


def pair(**options: float | None) -> tuple[SparsifinerAttention, PlainSparsifinerAttention]:
    torch.manual_seed(1)
    keep_rate = options.get("keep_rate", 0.25)
    threshold = {"score_threshold": options["score_threshold"]} if "score_threshold" in options else {}
    ours = SparsifinerAttention(32, num_heads=2, grid=7, keep_rate=keep_rate, predictor=threshold)
    plain = PlainSparsifinerAttention(32, num_heads=2, grid=(7, 7), keep_rate=keep_rate, **threshold)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    "chunk", [pytest.param(10**6, marks=pytest.mark.full), 2000, pytest.param(30, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("gather", [False, True])
def test_it_equals_the_plain_formulation(
    height: int, width: int, chunk: int, gather: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_predictor, "CACHE_NUMEL", chunk)
    ours, plain = pair()
    ours.mask_predictor.gather = gather
    x = image(height, width)
    expected = by_plain(plain, x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 5.0])
@pytest.mark.parametrize("chunk", [10**6, 2000])
def test_thresholds_give_rows_of_any_length(threshold: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_predictor, "CACHE_NUMEL", chunk)
    ours, plain = pair(keep_rate=None, score_threshold=threshold)
    x = image()
    torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-4)
    kept = ours.connections(x).mask.sum(dim=-1)
    assert kept.unique().numel() > 1 or not kept.any()


@pytest.mark.parametrize("chunk", [10**6, 2000])
def test_gradients_are_those_of_the_plain_formulation_and_of_reconstruction(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_predictor, "CACHE_NUMEL", chunk)
    ours, plain = pair()
    x = image()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (ours(x) * weight).sum().backward()
    error = plain.reconstruction_error(x.permute(0, 3, 1, 2))
    ((by_plain(plain, x) * weight).sum() + 0.002 / len(x) * error).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_the_collected_error_is_the_square_of_the_difference() -> None:
    ours, plain = pair()
    predictor = ours.mask_predictor
    predictor.mode, predictor.losses = "reconstruct", []
    ours(image())
    expected = plain.reconstruction_error(image().permute(0, 3, 1, 2))
    torch.testing.assert_close(predictor.losses[0], expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_predictor_gets_no_gradient() -> None:
    ours, _ = pair()
    ours.mask_predictor.requires_grad_(False)
    ours(image()).sum().backward()
    assert all(parameter.grad is None for parameter in ours.mask_predictor.parameters())


@pytest.mark.parametrize(("rate", "kept"), [(0.25, 13), (0.01, 1), (1.0, 49)])
def test_every_query_keeps_its_budget(rate: float, kept: int) -> None:
    ours, _ = pair(keep_rate=rate)
    assert (ours.connections(image()).mask.sum(dim=-1) == kept).all()


def test_equal_scores_do_not_exceed_the_budget() -> None:
    ours, _ = pair()
    with torch.no_grad():
        ours.mask_predictor.proj_back_n.zero_()
    assert (ours.connections(image()).mask.sum(dim=-1) == 13).all()


def test_all_connections_are_softmax_attention() -> None:
    ours, _ = pair(keep_rate=1.0)
    x = image()
    sparse = ours(x)
    ours.mask_predictor.mode = "dense"
    torch.testing.assert_close(sparse, ours(x), rtol=1e-4, atol=1e-5)


def test_a_context_competes_like_any_key() -> None:
    ours, _ = pair()
    context = torch.randn(2, 5, 32)
    found = ours.connections(image(), context)
    assert found.mask.shape == (2, 2, 49, 54)
    assert (found.mask.sum(dim=-1) == 14).all()
    assert ours(image(), context).shape == (2, 7, 7, 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype: torch.dtype) -> None:
    ours, _ = pair(keep_rate=1.0)  # a budget may choose otherwise after rounding
    exact = ours(image()).detach()
    half = ours.to(dtype)(image().to(dtype))
    assert half.dtype == dtype
    assert (half.float() - exact).std() < 0.05 * exact.std()
    half.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


def test_autocast_runs_and_learns() -> None:
    ours, _ = pair()
    with torch.autocast("cpu", torch.bfloat16):
        ours(image()).float().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "does not divide by num_heads 3"),
        ({"keep_rate": 0.0}, "keep_rate is 0.0"),
        ({"keep_rate": None, "predictor": {"gather": True}}, "gather needs"),
        ({"grid": 0}, "grid is 0"),
        ({"predictor": {"keep": 1}}, "predictor has no option 'keep'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparsifinerAttention(32, **options)
