"""Sparse attention over connections that a low-rank attention predicts.

Source: Wei et al. 2023, arXiv:2303.13755, section 3; lim142857/Sparsifiner@9a11e26, src/models/sparsifiner.py,
whose parameter names are kept. The kept connections of a row are unstructured, for which no device has a
fast kernel: the mask saves multiplications on paper, not time. `gather=True` computes only the kept connections.
Dropping tokens does save time; see `regard.vision.backbones.sparsifiner`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["Connections", "MaskPredictor", "resize_table"]

#: Values in one chunk of a score map: half a MB of float32, so that it stays in the cache.
CACHE_NUMEL = 2**17


class Connections(NamedTuple):
    """The predicted connections of a map.

    Attributes:
        coefficients: sparsified shares of the basis rows in each query's row, 0-1.
        scores: the approximate attention; dropped tokens are -inf.
        mask: the kept connections.
    """

    coefficients: Float[Tensor, "batch heads queries rank"]
    scores: Float[Tensor, "batch heads queries keys"]
    mask: Bool[Tensor, "batch heads queries keys"]


class MaskPredictor(nn.Module):
    """Attention over the largest entries of a low-rank prediction of the attention.

        coefficients = softmax(proj_c_q(q) (proj_c_k(k)^T proj_n) / sqrt(heads));  scores = coefficients proj_back_n^T
        out = softmax over the kept keys of q k^T / sqrt(head_dim), times v

    The selection has no gradient; the predictor is trained to reconstruct the softmax attention with all coefficients
    and the signed basis. That squared error is computed without forming either map.

    `mode` is `"sparse"`, `"reconstruct"` (softmax attention, and the error goes to `losses` if that is a list) or
    `"dense"` (softmax attention). In training `"sparse"` adds the gradient of the error to the predictor's parameters,
    unless they are frozen or `reconstruction` is 0. With float16 loss scaling that gradient is not scaled: use bfloat16
    there.

    Differences from the authors: the budget is computed at each call (theirs shrinks permanently once tokens are
    dropped), and in `"sparse"` mode the error is the mean over images.

    Args:
        tokens: rows of the tables: the tokens of an image.
        head_dim: width of a head.
        keep_rate: share of a row that is kept, 0-1; None keeps what is above `score_threshold`.
        score_threshold: see `keep_rate`.
        reduce_n: tokens over basis rows.
        reduce_c: `head_dim` over the width of the low-rank attention.
        tied: whether the table that reads keys is also the basis.
        basis_threshold: entries of the basis not above this are zero.
        coefficients: largest coefficients of a row that are kept; None keeps what is above `coefficient_threshold`.
        coefficient_threshold: see `coefficients`.
        empty_dropped: whether dropped queries attend to nothing.
        gather: whether to compute only the kept connections; slower on every device tested.
        reconstruction: weight of the error in `"sparse"` mode.

    Raises:
        ValueError: a share out of range, or `gather` without `keep_rate`.

    Example:
        >>> query = key = value = torch.rand(2, 3, 50, 16)
        >>> MaskPredictor(50, 16)(query, key, value).shape
        torch.Size([2, 3, 50, 16])
    """

    def __init__(
        self,
        tokens: int,
        head_dim: int,
        *,
        keep_rate: float | int | None = 0.25,
        score_threshold: float | int = 1e-4,
        reduce_n: float | int = 6,
        reduce_c: float | int = 2,
        tied: bool = False,
        basis_threshold: float | int = 0.02,
        coefficients: int | None = 8,
        coefficient_threshold: float | int = 0.05,
        empty_dropped: bool = False,
        gather: bool = False,
        reconstruction: float | int = 0.002,
    ) -> None:
        super().__init__()
        if keep_rate is not None and not 0 < keep_rate <= 1:
            raise ValueError(f"keep_rate is {keep_rate}; give a share above 0 and up to 1, or None for a threshold")
        if gather and keep_rate is None:
            raise ValueError("gather needs the same number of keys for every query; give a keep_rate")
        self.keep_rate, self.score_threshold = keep_rate, score_threshold
        self.basis_threshold = basis_threshold
        self.top_coefficients, self.coefficient_threshold = coefficients, coefficient_threshold
        self.empty_dropped, self.gather, self.reconstruction = empty_dropped, gather, reconstruction
        rank, width = max(1, int(tokens // reduce_n)), max(1, int(head_dim // reduce_c))
        self.proj_n = nn.Parameter(torch.empty(tokens, rank))
        self.proj_back_n = self.proj_n if tied else nn.Parameter(torch.empty(tokens, rank))
        self.proj_c_q = nn.Linear(head_dim, width)
        self.proj_c_k = nn.Linear(head_dim, width)
        self.mode: Literal["sparse", "reconstruct", "dense"] = "sparse"
        self.losses: list[Tensor] | None = None
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal with std 0.02; biases are zero."""
        for weight in (self.proj_n, self.proj_back_n, self.proj_c_q.weight, self.proj_c_k.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        for linear in (self.proj_c_q, self.proj_c_k):
            nn.init.zeros_(linear.bias)

    def resize(self, old: tuple[int, int], new: tuple[int, int], *, prefix: int = 0) -> None:
        """Fit the tables to another image; arguments as for `resize_table`. The rank stays."""
        tied = self.proj_back_n is self.proj_n
        for name in ("proj_n", "proj_back_n"):
            table = getattr(self, name)
            resized = nn.Parameter(resize_table(table.data, old, new, prefix=prefix), table.requires_grad)
            setattr(self, name, self.proj_n if tied and name == "proj_back_n" else resized)

    def budget(self, tokens: int) -> int:
        """Number of connections that a query keeps among `tokens` tokens, if no threshold is used."""
        return tokens if self.keep_rate is None else max(1, math.ceil(self.keep_rate * tokens))

    def forward(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        *,
        tables: tuple[Tensor, Tensor] | None = None,
        valid: Bool[Tensor, "batch keys"] | None = None,
        budget: int | None = None,
    ) -> Float[Tensor, "batch heads queries head_dim"]:
        """Attend.

        Args:
            query: of the last `queries` tokens.
            key: of all tokens.
            value: of all tokens.
            tables: `proj_n` and `proj_back_n` for the tokens at hand, (keys, rank) or (batch, keys, rank), where
                these are not all tokens in order.
            valid: tokens that were not dropped; the others' queries, keys and values must be zero.
            budget: connections that a query keeps.
        """
        if self.mode == "dense":
            return F.scaled_dot_product_attention(query, key, value)
        reads, basis = tables or (self.proj_n, self.proj_back_n)
        with torch.autocast(query.device.type, enabled=False):
            learns = self.mode == "reconstruct" or (self.training and self.reconstruction > 0)
            learns = learns and torch.is_grad_enabled() and self.proj_n.requires_grad
            with torch.set_grad_enabled(learns):
                coefficients = self._coefficients(query.detach(), key.detach(), reads, valid)
            if self.mode == "reconstruct":
                if self.losses is not None:
                    error = _reconstruction_error(coefficients, basis, query.detach(), key.detach())
                    self.losses.append(error + _squares(query, key))
                return F.scaled_dot_product_attention(query, key, value)
            plan = self._sparsen(coefficients.detach()), self._basis(basis.detach())
            mixed = self._attend(query, key, value, *plan, valid, budget or self.budget(key.shape[2]))
            if learns:
                error = _reconstruction_error(coefficients, basis, query.detach(), key.detach())
                mixed = _WithGradientOf.apply(mixed, error * (self.reconstruction / query.shape[0]))
        return mixed

    @torch.no_grad()
    def connections(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        *,
        tables: tuple[Tensor, Tensor] | None = None,
        valid: Bool[Tensor, "batch keys"] | None = None,
        budget: int | None = None,
    ) -> Connections:
        """The connections that `forward` keeps, for inspection; arguments as there.

        In the mode `"reconstruct"` the coefficients are all there and the scores are of the signed basis.
        """
        reads, back = tables or (self.proj_n, self.proj_back_n)
        coefficients, basis = self._coefficients(query, key, reads, valid), back.to(_exact(query)).mT
        if self.mode == "sparse":
            coefficients, basis = self._sparsen(coefficients), self._basis(back)
        scores = coefficients @ (basis.unsqueeze(1) if basis.ndim == 3 else basis)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
        mask = self._choose(scores, budget or self.budget(key.shape[2]))
        if valid is not None:
            mask = mask & valid[:, None, None]
            if self.empty_dropped:
                mask = mask & valid[:, None, -query.shape[2] :, None]
        return Connections(coefficients, scores, mask)

    def _coefficients(self, query: Tensor, key: Tensor, reads: Tensor, valid: Tensor | None) -> Tensor:
        """Shares of the basis rows, (batch, heads, queries, rank).

        The projections of queries and keys are folded into the small matrices between them.
        """
        exact = _exact(query)
        query, key, reads = query.to(exact), key.to(exact), reads.to(exact)
        if valid is not None:
            reads = reads * valid.unsqueeze(-1)
        if reads.ndim == 3:
            reads = reads.unsqueeze(1)
        w_q, b_q, w_k, b_k = (p.to(exact) for linear in (self.proj_c_q, self.proj_c_k) for p in linear.parameters())
        low = w_k @ (key.mT @ reads) + b_k.unsqueeze(1) * reads.sum(dim=-2, keepdim=True)  # batch heads width rank
        # The authors scale by the number of heads, where a width would be expected.
        low = low * query.shape[1] ** -0.5
        logits = query @ (w_q.mT @ low) + b_q.unsqueeze(0) @ low
        if valid is not None:
            logits = logits * valid[:, None, -query.shape[2] :, None]
        return logits.softmax(dim=-1)

    def _sparsen(self, coefficients: Tensor) -> Tensor:
        if self.top_coefficients is None:
            return coefficients * (coefficients > self.coefficient_threshold)
        if self.top_coefficients >= coefficients.shape[-1]:
            return coefficients
        largest, indices = coefficients.topk(self.top_coefficients, sorted=False)
        return torch.zeros_like(coefficients).scatter(-1, indices, largest)

    def _basis(self, back: Tensor) -> Tensor:
        """(rank, keys), or (batch, rank, keys)."""
        magnitude = back.to(_exact(back)).abs()
        return (magnitude * (magnitude > self.basis_threshold)).mT

    def _choose(self, scores: Tensor, budget: int) -> Tensor:
        """The kept connections of some rows; the choice among equal scores depends on the backend."""
        if self.keep_rate is None:
            return scores > self.score_threshold
        if scores.device.type == "cpu" and not torch.compiler.is_compiling() and budget < scores.shape[-1]:
            # NumPy finds the smallest kept score five times faster than topk finds all; without ties that is it.
            rank = scores.shape[-1] - budget
            smallest = torch.from_numpy(np.partition(scores.numpy(), rank)[..., rank].copy())
            mask = scores >= smallest.unsqueeze(-1)
            if mask.sum() == budget * smallest.numel():
                return mask
        indices = scores.topk(budget, sorted=False).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, indices, True)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        coefficients: Tensor,
        basis: Tensor,
        valid: Tensor | None,
        budget: int,
    ) -> Tensor:
        """Sparse attention; on a CPU in chunks, and of whole maps at most the mask is there, for the gradient."""
        batch, heads, queries, _ = query.shape
        keys = key.shape[2]
        if basis.ndim == 3:
            basis = basis.repeat_interleave(heads, dim=0)
        if valid is not None:
            valid = valid.repeat_interleave(heads, dim=0).unsqueeze(1)  # maps 1 keys
        alive = valid[..., -queries:].mT if valid is not None and self.empty_dropped else None  # maps queries 1
        query, key, value, coefficients = (x.flatten(0, 1) for x in (query, key, value, coefficients))
        maps = _Maps(query, key, value, coefficients, basis, valid, alive)
        eager_cpu = query.device.type == "cpu" and not torch.compiler.is_compiling()
        chunks = _chunks(len(maps.query), queries, keys) if eager_cpu else []
        if len(chunks) <= 1 or (self.gather and torch.is_grad_enabled()):
            mixed = self._mix(maps, budget)
        elif torch.is_grad_enabled():
            mask = maps.query.new_empty(len(maps.query), queries, keys)
            for chunk in chunks:
                mask[chunk] = self._mask(_cut(maps, *chunk), budget)
            mixed = _masked(maps, mask, self._rows_may_be_empty)
        else:
            mixed = torch.empty_like(maps.query)
            for chunk in chunks:
                mixed[chunk] = self._mix(_cut(maps, *chunk), budget)
        return mixed.unflatten(0, (batch, heads))

    def _mix(self, maps: _Maps, budget: int) -> Tensor:
        if self.gather:
            return _gathered(maps, _scores(maps).topk(budget, sorted=False).indices)
        return _masked(maps, self._mask(maps, budget), self._rows_may_be_empty)

    def _mask(self, maps: _Maps, budget: int) -> Tensor:
        """What is added to the logits: 0 or -inf."""
        mask = self._choose(_scores(maps), budget)
        for allowed in (maps.valid, maps.alive):
            if allowed is not None:
                mask = mask & allowed
        return torch.where(mask, 0.0, -torch.inf).to(maps.query.dtype)

    @property
    def _rows_may_be_empty(self) -> bool:
        return self.keep_rate is None or self.empty_dropped


def resize_table(
    table: Float[Tensor, "tokens rank"], old: tuple[int, int], new: tuple[int, int], *, prefix: int = 0
) -> Float[Tensor, "new_tokens rank"]:
    """A predictor's table for another image: bicubic in float32, antialiased as timm resizes position tables.

    Args:
        table: a row for each token.
        old: height and width in patches that it is made for.
        new: those wanted.
        prefix: first rows, which are not patches and stay as they are.

    Example:
        >>> resize_table(torch.rand(1 + 9, 4), (3, 3), (2, 5), prefix=1).shape
        torch.Size([11, 4])
    """
    if old == new:
        return table
    with torch.autocast(table.device.type, enabled=False):
        image = table[prefix:].to(_exact(table)).unflatten(0, old).permute(2, 0, 1).unsqueeze(0)
        image = F.interpolate(image, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:prefix], image[0].flatten(1).mT.to(table.dtype)])


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _Maps(NamedTuple):
    """Some rows of some maps of attention, a map for each head of each image.

    Attributes:
        query: (maps, queries, head_dim).
        key: (maps, keys, head_dim).
        value: (maps, keys, head_dim).
        coefficients: (maps, queries, rank).
        basis: (rank, keys), or (maps, rank, keys).
        valid: keys that may be chosen, (maps, 1, keys).
        alive: queries that may choose, (maps, queries, 1).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    coefficients: Tensor
    basis: Tensor
    valid: Tensor | None
    alive: Tensor | None


def _cut(maps: _Maps, some: slice, rows: slice) -> _Maps:
    """Fewer maps, and fewer rows of them."""
    return _Maps(
        maps.query[some, rows],
        maps.key[some],
        maps.value[some],
        maps.coefficients[some, rows],
        maps.basis[some] if maps.basis.ndim == 3 else maps.basis,
        None if maps.valid is None else maps.valid[some],
        None if maps.alive is None else maps.alive[some, rows],
    )


def _scores(maps: _Maps) -> Tensor:
    """The predicted attention; -inf for invalid keys."""
    scores = maps.coefficients @ maps.basis
    return scores if maps.valid is None else scores.masked_fill(~maps.valid, -torch.inf)


def _chunks(maps: int, queries: int, keys: int) -> list[tuple[slice, slice]]:
    """Maps and rows of them, so that each chunk of scores fits the cache."""
    some, rows = max(1, CACHE_NUMEL // max(1, queries * keys)), max(1, CACHE_NUMEL // keys)
    return [
        (slice(first, first + some), slice(top, top + rows))
        for first in range(0, maps, some)
        for top in range(0, queries, rows)
    ]


def _masked(maps: _Maps, mask: Tensor, may_be_empty: bool) -> Tensor:
    """Softmax attention with a mask of 0 and -inf; an empty row gives zero."""
    query, key, value = (x.unsqueeze(1) for x in maps[:3])
    if not may_be_empty:
        return F.scaled_dot_product_attention(query, key, value, mask.unsqueeze(1)).squeeze(1)
    empty = mask.isneginf().all(dim=-1, keepdim=True)
    mask = mask.masked_fill(empty, 0).unsqueeze(1)
    return F.scaled_dot_product_attention(query, key, value, mask).squeeze(1).masked_fill(empty, 0)


def _gathered(maps: _Maps, indices: Tensor) -> Tensor:
    """Attention to the keys at `indices` (maps, queries, kept) and to no others."""
    query, key, value = maps[:3]
    own = torch.arange(key.shape[0], device=key.device)[:, None, None]
    logits = (key[own, indices] @ query.unsqueeze(-1)).squeeze(-1) * query.shape[-1] ** -0.5  # maps queries kept
    if maps.valid is not None:
        logits = logits.masked_fill(~maps.valid.squeeze(1)[own, indices], -torch.inf)
    mixed = (logits.softmax(dim=-1).unsqueeze(2) @ value[own, indices]).squeeze(2)
    return mixed if maps.alive is None else mixed.masked_fill(~maps.alive, 0)


def _reconstruction_error(coefficients: Tensor, back: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Squared error of `coefficients @ back.T` against the softmax attention, summed, without its own square.

    |A - P|^2 = |A|^2 - 2 <A, P> + |P|^2. With A = c B^T the first is a matter of (rank, rank) matrices, and the
    second needs P B, which is attention with the basis for values; the third has no gradient.
    """
    back = back.to(coefficients.dtype)
    if back.ndim == 3:
        back = back.unsqueeze(1)
    query, key = query.to(back.dtype), key.to(back.dtype)
    head_dim, rank = query.shape[-1], back.shape[-1]
    width = max(head_dim, rank)  # kernels that form no map want one width
    values = F.pad(back, (0, width - rank)).expand(*key.shape[:2], -1, -1)
    query, key = (F.pad(x, (0, width - head_dim)) for x in (query, key))
    mixed = F.scaled_dot_product_attention(query, key, values, scale=head_dim**-0.5)[..., :rank]
    squares = ((coefficients.mT @ coefficients) * (back.mT @ back)).sum()
    return squares - 2 * (coefficients * mixed).sum()


@torch.no_grad()
def _squares(query: Tensor, key: Tensor) -> Tensor:
    """Sum of the squares of the softmax attention, a map at a time."""
    query, key = query.to(_exact(query)) * query.shape[-1] ** -0.5, key.to(_exact(key))
    pairs = zip(query.flatten(0, 1), key.flatten(0, 1), strict=True)
    return torch.stack([(q @ k.mT).softmax(dim=-1).square().sum() for q, k in pairs]).sum()


class _WithGradientOf(torch.autograd.Function):
    """The first argument, with the gradient of the second, a loss, added in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (loss,) = ctx.saved_tensors
        return gradient, torch.ones_like(loss)
