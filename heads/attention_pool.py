"""Exact attention pooling of projected instances, computed in blocks.

For the instances x_i of a bag and the maps k (branches or classes):

    h_i = ReLU(W x_i + b)                                                  `projection`
    s_ik = w_k . (tanh(V h_i + c) * sigmoid(U h_i + d)) + e_k              `scorer`: w score, V value, U gate
    a_k = softmax over i of s_ik;  z_k = sum_i a_ik h_i                    `Pooled.scores` is s, `Pooled.features` z

Source: Ilse et al. 2018, arXiv:1802.04712, equations 7 (pooling) and 9 (gated scores).

PyTorch's autograd would store the output of every layer for all instances and traverse each of them again in the
backward pass. Here a block of instances stays in the cache from the first layer to the last. The softmax is accumulated
over blocks as its running maximum, sum and weighted sum. The backward pass is computed in blocks too: the gradient of
a softmax needs only the scalar z . dz of the rest of the bag. Between the passes either h alone is stored
(`chunk=None`), or nothing, and h is recomputed (`chunk=16384`), so that a bag of any size fits. Dropout is reproduced
from its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["HIDDEN", "Pooled", "Scorer", "attention_pool", "check_chunk"]

#: Score of a valid instance that is hidden from a map. Its weight is zero, unless all instances are hidden, in which
#: case all weigh the same, as with the -1e9 of published code. Padding has score -inf and always weight zero.
HIDDEN = torch.finfo(torch.float32).min

#: Instances of a block for each CPU thread, chosen to fit the second-level cache.
_ROWS = {"cpu": 1024}


class Scorer(NamedTuple):
    """The layers of the scores: score(tanh(value(h)) * sigmoid(gate(h))), without the gate if it is None."""

    value: nn.Linear
    gate: nn.Linear | None
    score: nn.Linear


class Pooled(NamedTuple):
    """The result of attention pooling.

    Attributes:
        features: the weighted mean of the projected instances, for each map.
        scores: scores before softmax, float32 or wider; -inf for padding, `HIDDEN` for hidden instances.
    """

    features: Float[Tensor, "bags maps width"]
    scores: Float[Tensor, "bags maps instances"]


def check_chunk(chunk: int | None) -> int | None:
    """Check `chunk` and return it.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> check_chunk(16384)
        16384
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; give the number of instances of a chunk, e.g. 16384, or None")
    return chunk


def attention_pool(
    bag: Float[Tensor, "bags instances dim"],
    valid: Bool[Tensor, "bags instances"] | None,
    projection: nn.Linear,
    scorer: Scorer,
    *,
    drop_rate: float = 0.0,
    score_drop_rate: float = 0.0,
    hide: Callable[[Float[Tensor, "bags maps instances"]], Bool[Tensor, "bags maps instances"]] | None = None,
    chunk: int | None = None,
) -> Pooled:
    """Project, score and pool each bag; differentiable once, with respect to the bag and all weights.

    Args:
        bag: instances of any floating-point type; blocks are cast to the type of the weights, or to autocast's.
        valid: True for instances, False for padding; None if there is no padding.
        projection: the linear layer dim -> width.
        scorer: the layers width -> maps.
        drop_rate: dropout of the projected instances, 0 to below 1; give 0 outside training.
        score_drop_rate: dropout before the layer `score`, likewise.
        hide: from the scores (-inf for padding) to a mask of the instances that are hidden from a map in this pass.
        chunk: instances of a block, if the projection is recomputed in the backward pass; None stores it.

    Example:
        >>> scorer = Scorer(nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 1))
        >>> pooled = attention_pool(torch.rand(2, 5, 8), None, nn.Linear(8, 4), scorer)
        >>> pooled.features.shape, pooled.scores.shape
        (torch.Size([2, 1, 4]), torch.Size([2, 1, 5]))
    """
    device = bag.device.type
    inner = [scorer.value] if scorer.gate is None else [scorer.value, scorer.gate]
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else projection.weight.dtype
    block = _ROWS[device] * torch.get_num_threads() if device in _ROWS else 65536
    rows = min(chunk or max(1, block // len(bag)), bag.shape[1])
    random = drop_rate > 0 or score_drop_rate > 0
    settings = _Settings(
        gated=scorer.gate is not None,
        rates=(drop_rate, score_drop_rate),
        seed=int(torch.randint(2**62, ())) if random else 0,
        hide=hide,
        rows=rows,
        keep=chunk is None,
        dtype=dtype,
    )
    bias = projection.bias if projection.bias is not None else projection.weight.new_zeros(len(projection.weight))
    with torch.autocast(device, enabled=False):
        features, scores = _AttentionPool.apply(
            settings,
            bag,
            valid,
            projection.weight,
            bias,
            torch.cat([layer.weight for layer in inner]),
            torch.cat([layer.bias for layer in inner]),
            scorer.score.weight,
            scorer.score.bias,
        )
    return Pooled(features, scores)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Settings of a pass: `rates` are those of both dropouts, `keep` is whether the projection is stored."""

    gated: bool
    rates: tuple[float, float]
    seed: int
    hide: Callable[[Tensor], Tensor] | None
    rows: int
    keep: bool
    dtype: torch.dtype

    @property
    def wide(self) -> torch.dtype:
        """The type of sums and scores: float32 or wider."""
        return torch.promote_types(self.dtype, torch.float32)

    def blocks(self, count: int) -> Iterator[tuple[int, slice]]:
        """Index and slice of each block of `count` instances."""
        for number, start in enumerate(range(0, count, self.rows)):
            yield number, slice(start, min(start + self.rows, count))

    def noise(self, which: int, number: int, like: Tensor) -> Tensor | None:
        """Dropout factors of a block; the same at every call."""
        rate = self.rates[which]
        if not rate:
            return None
        generator = torch.Generator(like.device).manual_seed((self.seed + 2 * number + which) % 2**63)
        return torch.empty_like(like).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


class _AttentionPool(torch.autograd.Function):
    """Forward and backward pass of `attention_pool`; `inner` holds the rows of value and then those of gate."""

    @staticmethod
    def forward(
        ctx: Any,
        settings: _Settings,
        bag: Tensor,
        valid: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        inner: Tensor,
        inner_bias: Tensor,
        score: Tensor,
        score_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        bags, count, _ = bag.shape
        weights = [each.to(settings.dtype) for each in (weight, bias, inner, inner_bias, score, score_bias)]
        scores = bag.new_empty(bags, len(score), count, dtype=settings.wide)
        kept: list[Tensor] = []
        running = _Running(bags, len(score), len(weight), scores)
        for number, rows in settings.blocks(count):
            hidden = _project(settings, bag[:, rows], number, weights)
            _, _, product = _score_inputs(settings, number, hidden, weights)
            found = torch.addmm(weights[5], product, weights[4].t()).to(settings.wide)
            scores[:, :, rows] = found.view(bags, -1, len(score)).transpose(1, 2)
            if valid is not None:
                scores[:, :, rows].masked_fill_(~valid[:, None, rows], -torch.inf)
            if settings.keep:
                kept.append(hidden)
            if settings.hide is None:
                running.add(scores[:, :, rows], hidden)
        if settings.hide is not None:
            scores.masked_fill_(settings.hide(scores) & scores.isfinite(), HIDDEN)
            for number, rows in settings.blocks(count):
                hidden = kept[number] if settings.keep else _project(settings, bag[:, rows], number, weights)
                running.add(scores[:, :, rows], hidden)
        features = running.mean()
        ctx.settings = settings
        ctx.save_for_backward(bag, scores, features, *weights, *kept)
        ctx.dtypes = [each.dtype for each in (weight, bias, inner, inner_bias, score, score_bias)]
        return features.to(settings.dtype), scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_features: Tensor, d_scores: Tensor | None) -> tuple[Tensor | None, ...]:
        settings: _Settings = ctx.settings
        bag, scores, features, *rest = ctx.saved_tensors
        weights, kept = rest[:6], rest[6:]
        weight, _, inner, _, score, _ = weights
        bags, maps, count = scores.shape
        attention = scores.softmax(dim=-1)
        d_features = d_features.to(settings.wide)
        common = (features * d_features).sum(dim=-1, keepdim=True)  # bags maps 1
        unseen = scores <= HIDDEN
        d_pooled = d_features.to(settings.dtype)
        sums = [torch.zeros_like(each, dtype=settings.wide) for each in weights]
        d_bag = torch.empty_like(bag) if ctx.needs_input_grad[1] else None
        for number, rows in settings.blocks(count):
            block = bag[:, rows].to(settings.dtype).flatten(0, 1)
            hidden = kept[number] if settings.keep else _project(settings, bag[:, rows], number, weights)
            tangent, gate, product = _score_inputs(settings, number, hidden, weights)
            here = attention[:, :, rows]
            d_here = torch.bmm(d_pooled, hidden.view(bags, -1, len(weight)).transpose(1, 2)).to(settings.wide)
            d_score = (d_here - common) * here
            if d_scores is not None:
                d_score = d_score + d_scores[:, :, rows]
            d_score = d_score.masked_fill_(unseen[:, :, rows], 0).transpose(1, 2).reshape(-1, maps).to(settings.dtype)
            _add_product(sums[4], d_score, product)
            sums[5] += d_score.sum(dim=0)
            d_inner = _through_score(settings, number, tangent, gate, d_score @ score)
            _add_product(sums[2], d_inner, hidden)
            sums[3] += d_inner.sum(dim=0)
            d_hidden = torch.mm(d_inner, inner)
            d_hidden.view(bags, -1, len(weight)).baddbmm_(here.transpose(1, 2).to(settings.dtype), d_pooled)
            d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)
            if settings.rates[0]:
                d_hidden /= 1 - settings.rates[0]
            _add_product(sums[0], d_hidden, block)
            sums[1] += d_hidden.sum(dim=0)
            if d_bag is not None:
                d_bag[:, rows] = torch.mm(d_hidden, weight).view(bags, -1, weight.shape[1])
        return None, d_bag, None, *(each.to(dtype) for each, dtype in zip(sums, ctx.dtypes, strict=True))


class _Running:
    """Softmax-weighted sum over blocks, with a running maximum."""

    def __init__(self, bags: int, maps: int, width: int, like: Tensor) -> None:
        self.top = like.new_full((bags, maps, 1), -torch.inf)
        self.total = like.new_zeros(bags, maps, 1)
        self.sum = like.new_zeros(bags, maps, width)

    def add(self, scores: Tensor, hidden: Tensor) -> None:
        top = torch.maximum(self.top, scores.amax(dim=-1, keepdim=True))
        base = top.clamp(min=HIDDEN)  # a bag may have no instance in the first blocks
        fading = (self.top - base).exp()
        weights = (scores - base).exp()
        self.total = self.total * fading + weights.sum(dim=-1, keepdim=True)
        hidden = hidden.view(len(scores), -1, hidden.shape[-1])
        self.sum = self.sum * fading + torch.bmm(weights, hidden.to(weights.dtype))
        self.top = top

    def mean(self) -> Tensor:
        return self.sum / self.total


def _project(settings: _Settings, block: Tensor, number: int, weights: list[Tensor]) -> Tensor:
    """The projected instances of a block, bag after bag."""
    weight, bias = weights[:2]
    hidden = torch.addmm(bias, block.to(settings.dtype).flatten(0, 1), weight.t()).relu_()
    noise = settings.noise(0, number, hidden)
    return hidden if noise is None else hidden.mul_(noise)


def _score_inputs(
    settings: _Settings, number: int, hidden: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Tanh, sigmoid, and their product after dropout."""
    inner, inner_bias = weights[2:4]
    both = torch.addmm(inner_bias, hidden, inner.t())
    if not settings.gated:
        tangent, gate = both.tanh_(), None
        product = tangent
    else:
        half = both.shape[1] // 2
        tangent, gate = both[:, :half].tanh_(), both[:, half:].sigmoid_()
        product = tangent * gate
    noise = settings.noise(1, number, product)
    return tangent, gate, product if noise is None else product * noise


def _through_score(settings: _Settings, number: int, tangent: Tensor, gate: Tensor | None, d_product: Tensor) -> Tensor:
    """The gradients before tanh and sigmoid, concatenated."""
    noise = settings.noise(1, number, d_product)
    if noise is not None:
        d_product = d_product.mul_(noise)
    if gate is None:
        return d_product.addcmul_(d_product * tangent, tangent, value=-1)
    product = tangent * gate
    d_both = product.new_empty(len(product), 2 * product.shape[1])
    half = product.shape[1]
    torch.addcmul(gate, product, tangent, value=-1, out=d_both[:, :half]).mul_(d_product)
    torch.addcmul(product, product, gate, value=-1, out=d_both[:, half:]).mul_(d_product)
    return d_both


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right to the total, in its type."""
    if left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    else:
        total += left.t() @ right
