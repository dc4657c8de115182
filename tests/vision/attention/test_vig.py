import copy
import pickle

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.vision.attention import vig
from regard.vision.attention.plain.vig import PlainVigAttention, recurrence
from regard.vision.attention.vig import VigAttention, gated_linear_attention

SIZES = [(1, 1), (1, 9), (5, 3), (13, 17), (8, 8)]


def image(height: int = 7, width: int = 9, dim: int = 24, batch: int = 2) -> Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(0))


def pair(**options: object) -> tuple[VigAttention, PlainVigAttention]:
    torch.manual_seed(1)
    ours, plain = VigAttention(24, num_heads=3, **options), PlainVigAttention(24, num_heads=3, **options)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def by_plain(plain: nn.Module, x: Tensor) -> Tensor:
    return plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def sequences(tokens: int, *, strength: float | int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens)
    made = [torch.randn(2, 3, tokens, width, generator=generator, dtype=dtype) for width in (4, 4, 5, 4, 4)]
    return *made[:3], *(F.logsigmoid(strength * gate) / 16 for gate in made[3:])


def by_recurrence(query: Tensor, key: Tensor, value: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    there = recurrence(query, key, value, forward)
    return there + recurrence(*(x.flip(2) for x in (query, key, value, backward))).flip(2)


@pytest.mark.parametrize("tokens", [1, 2, 31, 32, 33, 130])
def test_chunks_equal_the_recurrence(tokens: int) -> None:
    inputs = sequences(tokens)
    found = gated_linear_attention(*inputs[:3], forward=inputs[3], backward=inputs[4])
    torch.testing.assert_close(found, by_recurrence(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ways", [(True, True), (True, False), (False, True)])
def test_segments_of_a_long_sequence_pass_their_memory_on(
    ways: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vig, "CACHE_NUMEL", 1)
    inputs = sequences(700)
    decays = [decay if used else None for decay, used in zip(inputs[3:], ways, strict=True)]
    whole = gated_linear_attention(*(x.clone().requires_grad_() for x in inputs[:3]), *decays)
    with torch.no_grad():
        assert vig._segment(inputs[2]) < 700
        found = gated_linear_attention(*inputs[:3], *decays)
    torch.testing.assert_close(found, whole.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strength", [50, 300, 10_000])
def test_memories_that_fade_at_once_stay_exact(strength: int) -> None:
    inputs = tuple(x.requires_grad_() for x in sequences(70, strength=strength))
    found = gated_linear_attention(*inputs[:3], forward=inputs[3], backward=inputs[4])
    torch.testing.assert_close(found, by_recurrence(*inputs), rtol=1e-5, atol=1e-5)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(found.sum(), inputs))


def test_each_way_stands_alone() -> None:
    query, key, value, forward, backward = sequences(45)
    both = gated_linear_attention(query, key, value, forward=forward, backward=backward)
    there = gated_linear_attention(query, key, value, forward=forward)
    back = gated_linear_attention(query, key, value, backward=backward)
    torch.testing.assert_close(there, recurrence(query, key, value, forward), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there + back, both, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="forward, backward or both"):
        gated_linear_attention(query, key, value)


def test_forward_a_token_sees_none_that_comes_later() -> None:
    query, key, value, forward, _ = sequences(45)
    before = gated_linear_attention(query, key, value, forward=forward)
    value[:, :, 30:] = 7
    after = gated_linear_attention(query, key, value, forward=forward)
    torch.testing.assert_close(after[:, :, :30], before[:, :, :30])
    assert not torch.allclose(after[:, :, 30:], before[:, :, 30:])


def test_without_decay_all_tokens_are_read_alike() -> None:
    query, key, value, _, _ = sequences(45)
    forever = torch.zeros_like(key)
    both = gated_linear_attention(query, key, value, forward=forever, backward=forever, scale=1.0)
    itself = (query * key).sum(dim=-1, keepdim=True) * value
    torch.testing.assert_close(both, query @ (key.mT @ value) + itself, rtol=1e-4, atol=1e-4)


def test_gradients_of_chunks_are_right() -> None:
    inputs = tuple(x[:1, :1].clone().requires_grad_() for x in sequences(35, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda *x: gated_linear_attention(*x[:3], forward=x[3], backward=x[4]), inputs, fast_mode=True
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_equals_the_plain_formulation(height: int, width: int) -> None:
    ours, plain = pair()
    x = image(height, width)
    torch.testing.assert_close(ours(x), by_plain(plain, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"conv_act": True, "out_act": True},
        {"conv_bias": True},
        {"expand_key": 1, "gate_normalizer": 4},
        {"divisor": 4},
    ],
)
def test_options_equal_those_of_the_plain_formulation(options: dict[str, object]) -> None:
    ours, plain = pair(**options)
    torch.testing.assert_close(ours(image()), by_plain(plain, image()), rtol=1e-4, atol=1e-5)


def test_chunks_of_a_batch_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = pair()
    x = image(batch=5)
    monkeypatch.setattr(vig, "CACHE_NUMEL", 2 * x[0].numel())
    for view in (x, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)):
        with torch.no_grad():
            torch.testing.assert_close(ours(view), by_plain(plain, x), rtol=1e-4, atol=1e-5)


def test_an_empty_batch_comes_out_empty() -> None:
    ours, _ = pair()
    with torch.no_grad():
        assert ours(image(batch=0)).shape == (0, 7, 9, 24)


def test_gradients_equal_those_of_the_plain_formulation() -> None:
    ours, plain = pair()
    weight = torch.randn(image().shape, generator=torch.Generator().manual_seed(2))
    (ours(image()) * weight).sum().backward()
    (by_plain(plain, image()) * weight).sum().backward()
    theirs = dict(plain.named_parameters())
    for name, mine in ours.named_parameters():
        torch.testing.assert_close(mine.grad, theirs[name].grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single(dtype: torch.dtype) -> None:
    ours, _ = pair()
    exact = ours(image(13, 17)).detach()
    with torch.no_grad():
        half = copy.deepcopy(ours).to(dtype)(image(13, 17).to(dtype))
        with torch.autocast("cpu", dtype):
            mixed = ours(image(13, 17))
    assert half.dtype == dtype
    for found in (half, mixed):
        assert (found.float() - exact).std() < 0.03 * exact.std()


def test_training_and_inference_are_the_same() -> None:
    ours, _ = pair()
    assert torch.equal(ours.train()(image()), ours.eval()(image()))


def test_compiled_and_exported_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' checks of shapes do not compile
    ours, _ = pair()
    ours.requires_grad_(False)
    expected = ours(image())
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image()), expected, rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(ours, (image(),), dynamic_shapes=sizes, strict=False).module()
    torch.testing.assert_close(exported(image(batch=3)), ours(image(batch=3)), rtol=1e-5, atol=1e-5)


def test_where_numbers_do_not_steer_a_fast_fading_memory_is_finite_and_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    inputs = sequences(70, strength=10_000)
    found = gated_linear_attention(*inputs[:3], forward=inputs[3], backward=inputs[4])
    torch.testing.assert_close(found, by_recurrence(*inputs), rtol=0, atol=1e-3)


def test_copies_and_pickles_are_the_same_block() -> None:
    ours, _ = pair()
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(image()), ours(image()))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="num_heads 5"):
        VigAttention(24, num_heads=5)
    with pytest.raises(ValueError, match="keys"):
        VigAttention(24, num_heads=8, expand_key=0.5)


def test_initial_weights_are_xavier_with_a_small_gain() -> None:
    torch.manual_seed(0)
    weight = VigAttention(256, num_heads=8).o_proj.weight
    assert weight.abs().max().item() == pytest.approx(2**-2.5 * (6 / 512) ** 0.5, rel=1e-3)
