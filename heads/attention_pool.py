"""Attention pooling of projected instances, block by block: time and memory of one pass over a bag, exactly.

What is computed, for instances x_i of a bag and maps k (branches, classes):

    h_i = ReLU(W x_i + b)                                                  the projection
    s_ik = w_k . (tanh(V h_i + c) * sigmoid(U h_i + d)) + e_k     Ilse et al. 2018, arXiv:1802.04712, equation 9
    a_k = softmax of s_k over the instances;  z_k = sum_i a_ik h_i         equation 7

PyTorch's own graph would keep every layer's output over all instances and walk each of them again backwards. Here a
block of instances stays in the cache from the first layer to the last, softmax is accumulated from block to block as
its running maximum, sum and weighted sum, and the gradient, which for softmax needs of the rest of the bag only
z . dz, is made block by block too. Between the passes either h alone is kept (`chunk=None`), or nothing, and h is made
again (`chunk=16384`), so that a bag of any size fits; dropout is drawn again from the same seed.
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

#: Score of an instance that is there but hidden from a map: it weighs nothing, unless all are hidden, which then weigh
#: the same, as where a published code writes -1e9. Padding is -inf and never weighs anything.
HIDDEN = torch.finfo(torch.float32).min

#: Instances in a block where nothing is to be saved: on a CPU those of a thread fit its second-level cache.
_ROWS = {"cpu": 1024}


class Scorer(NamedTuple):
    """The layers that score instances: tanh of `value`, times sigmoid of `gate` if there is one, into `score`."""

    value: nn.Linear
    gate: nn.Linear | None
    score: nn.Linear


class Pooled(NamedTuple):
    """What pooling gives.

    Attributes:
        features: the weighted mean of the projected instances, under each map.
        scores: before softmax, float32 at least; -inf where there is no instance, `HIDDEN` where it was hidden.
    """

    features: Float[Tensor, "bags maps width"]
    scores: Float[Tensor, "bags maps instances"]


def check_chunk(chunk: int | None) -> int | None:
    """`chunk` itself.

    Raises:
        ValueError: it is below 1.

    Example:
        >>> check_chunk(16384)
        16384
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; give how many instances to take at a time, e.g. 16384, or None")
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
    """Project, score and pool each bag; differentiable once, in the bag and all weights.

    Args:
        bag: instances, of any floating type; blocks of it are cast to the type of the weights, or to autocast's.
        valid: where instances are; None means everywhere.
        projection: dim -> width.
        scorer: width -> maps.
        drop_rate: dropout of the projected instances, 0 to below 1; 0 outside training.
        score_drop_rate: dropout of what tanh and sigmoid give, likewise.
        hide: from the scores, with -inf where nothing is, to where an instance shall not be seen in this pass.
        chunk: instances at a time, if their projection shall be made again rather than kept.

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
    how = _How(
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
            how,
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
class _How:
    """How a pass is done; `rates` are those of both dropouts, `keep` says that the projection is kept."""

    gated: bool
    rates: tuple[float, float]
    seed: int
    hide: Callable[[Tensor], Tensor] | None
    rows: int
    keep: bool
    dtype: torch.dtype

    @property
    def wide(self) -> torch.dtype:
        """The type of sums and scores: float32 at least."""
        return torch.promote_types(self.dtype, torch.float32)

    def blocks(self, count: int) -> Iterator[tuple[int, slice]]:
        """Number and place of each block of `count` instances."""
        for number, start in enumerate(range(0, count, self.rows)):
            yield number, slice(start, min(start + self.rows, count))

    def noise(self, which: int, number: int, like: Tensor) -> Tensor | None:
        """Factors of dropout for a block: the same whenever they are asked for."""
        rate = self.rates[which]
        if not rate:
            return None
        generator = torch.Generator(like.device).manual_seed((self.seed + 2 * number + which) % 2**63)
        return torch.empty_like(like).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


class _AttentionPool(torch.autograd.Function):
    """The passes of `attention_pool`; `inner` are the weights of value and gate, one below the other."""

    @staticmethod
    def forward(
        ctx: Any,
        how: _How,
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
        weights = [each.to(how.dtype) for each in (weight, bias, inner, inner_bias, score, score_bias)]
        scores = bag.new_empty(bags, len(score), count, dtype=how.wide)
        kept: list[Tensor] = []
        running = _Running(bags, len(score), len(weight), scores)
        for number, rows in how.blocks(count):
            hidden = _project(how, bag[:, rows], number, weights)
            _, _, product = _score_inputs(how, number, hidden, weights)
            found = torch.addmm(weights[5], product, weights[4].t()).to(how.wide)
            scores[:, :, rows] = found.view(bags, -1, len(score)).transpose(1, 2)
            if valid is not None:
                scores[:, :, rows].masked_fill_(~valid[:, None, rows], -torch.inf)
            if how.keep:
                kept.append(hidden)
            if how.hide is None:
                running.add(scores[:, :, rows], hidden)
        if how.hide is not None:
            scores.masked_fill_(how.hide(scores) & scores.isfinite(), HIDDEN)
            for number, rows in how.blocks(count):
                hidden = kept[number] if how.keep else _project(how, bag[:, rows], number, weights)
                running.add(scores[:, :, rows], hidden)
        features = running.mean()
        ctx.how = how
        ctx.save_for_backward(bag, scores, features, *weights, *kept)
        ctx.dtypes = [each.dtype for each in (weight, bias, inner, inner_bias, score, score_bias)]
        return features.to(how.dtype), scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_features: Tensor, d_scores: Tensor | None) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        bag, scores, features, *rest = ctx.saved_tensors
        weights, kept = rest[:6], rest[6:]
        weight, _, inner, _, score, _ = weights
        bags, maps, count = scores.shape
        attention = scores.softmax(dim=-1)
        d_features = d_features.to(how.wide)
        common = (features * d_features).sum(dim=-1, keepdim=True)  # bags maps 1
        unseen = scores <= HIDDEN
        d_pooled = d_features.to(how.dtype)
        sums = [torch.zeros_like(each, dtype=how.wide) for each in weights]
        d_bag = torch.empty_like(bag) if ctx.needs_input_grad[1] else None
        for number, rows in how.blocks(count):
            block = bag[:, rows].to(how.dtype).flatten(0, 1)
            hidden = kept[number] if how.keep else _project(how, bag[:, rows], number, weights)
            tangent, gate, product = _score_inputs(how, number, hidden, weights)
            here = attention[:, :, rows]
            d_here = torch.bmm(d_pooled, hidden.view(bags, -1, len(weight)).transpose(1, 2)).to(how.wide)
            d_score = (d_here - common) * here
            if d_scores is not None:
                d_score = d_score + d_scores[:, :, rows]
            d_score = d_score.masked_fill_(unseen[:, :, rows], 0).transpose(1, 2).reshape(-1, maps).to(how.dtype)
            _add_product(sums[4], d_score, product)
            sums[5] += d_score.sum(dim=0)
            d_inner = _through_score(how, number, tangent, gate, d_score @ score)
            _add_product(sums[2], d_inner, hidden)
            sums[3] += d_inner.sum(dim=0)
            d_hidden = torch.mm(d_inner, inner)
            d_hidden.view(bags, -1, len(weight)).baddbmm_(here.transpose(1, 2).to(how.dtype), d_pooled)
            d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)
            if how.rates[0]:
                d_hidden /= 1 - how.rates[0]
            _add_product(sums[0], d_hidden, block)
            sums[1] += d_hidden.sum(dim=0)
            if d_bag is not None:
                d_bag[:, rows] = torch.mm(d_hidden, weight).view(bags, -1, weight.shape[1])
        return None, d_bag, None, *(each.to(dtype) for each, dtype in zip(sums, ctx.dtypes, strict=True))


class _Running:
    """Softmax-weighted sums over blocks, by their running maximum."""

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


def _project(how: _How, block: Tensor, number: int, weights: list[Tensor]) -> Tensor:
    """The projected instances of a block, all bags one below the other."""
    weight, bias = weights[:2]
    hidden = torch.addmm(bias, block.to(how.dtype).flatten(0, 1), weight.t()).relu_()
    noise = how.noise(0, number, hidden)
    return hidden if noise is None else hidden.mul_(noise)


def _score_inputs(
    how: _How, number: int, hidden: Tensor, weights: list[Tensor]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Tanh, sigmoid, and their product after dropout."""
    inner, inner_bias = weights[2:4]
    both = torch.addmm(inner_bias, hidden, inner.t())
    if not how.gated:
        tangent, gate = both.tanh_(), None
        product = tangent
    else:
        half = both.shape[1] // 2
        tangent, gate = both[:, :half].tanh_(), both[:, half:].sigmoid_()
        product = tangent * gate
    noise = how.noise(1, number, product)
    return tangent, gate, product if noise is None else product * noise


def _through_score(how: _How, number: int, tangent: Tensor, gate: Tensor | None, d_product: Tensor) -> Tensor:
    """The gradient before tanh and sigmoid, side by side."""
    noise = how.noise(1, number, d_product)
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
    """Add left^T right, in the type of the total."""
    if left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    else:
        total += left.t() @ right
