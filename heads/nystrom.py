"""Nystrom attention as in TransMIL, computed with fewer operations.

Paper: Xiong et al. 2021, "Nystromformer: A Nystrom-based Algorithm for Approximating Self-Attention",
arXiv:2102.03902; lucidrains/nystrom-attention 0.0.14 is what TransMIL imports.

    softmax(Q M_K^T) pinv(softmax(M_Q M_K^T)) softmax(M_Q K^T) V

for queries Q, keys K, values V and landmarks M_Q, M_K, the means of groups of consecutive queries and keys. The result
is that of the reference up to rounding, with these differences: products are evaluated from the right, so that the
first and the last softmax are ordinary attention (with the rest as values) and are never stored; means are taken of the
tokens, before their linear projection; each iteration of the inverse is three fused products; if only one row is needed
(the class token of a last layer), products are evaluated from the left, without queries or values of all tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .depthwise import sequence_convolution

__all__ = ["NystromAttention", "iterated_inverse"]


def iterated_inverse(
    matrix: Float[Tensor, "heads landmarks landmarks"],
    right: Float[Tensor, "heads landmarks columns"],
    iterations: int,
) -> Float[Tensor, "heads landmarks columns"]:
    """An iterative Moore-Penrose inverse of `matrix`, multiplied with `right`; equation 11 of the paper.

        Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4

    It starts with A^T divided by the product of the largest column and row sums over all heads, as in the authors'
    code; theirs takes the maxima over the batch too, so that the result for a bag depends on the others. The last
    iteration is applied to `right`.

    Example:
        >>> iterated_inverse(2 * torch.eye(2)[None], torch.ones(1, 2, 1), 6)
        tensor([[[0.5000],
                 [0.5000]]])
    """
    sizes = matrix.abs()
    found = matrix.mT / (sizes.sum(dim=-1).amax() * sizes.sum(dim=-2).amax())
    for last in [False] * (iterations - 1) + [True]:
        near = matrix @ found
        start = right if last else near
        step = torch.baddbmm(start, near, start, beta=7, alpha=-1)  # (7 - near) of the start
        step = torch.baddbmm(start, near, step, beta=15, alpha=-1)
        if last:
            return found @ torch.baddbmm(right, near, step, beta=13 / 4, alpha=-1 / 4)
        found = torch.baddbmm(found, found, step, beta=13 / 4, alpha=-1 / 4)
    return found @ right


class NystromAttention(nn.Module):
    """Self-attention of one sequence through landmarks; zeros are prepended up to a multiple of their number.

    Args:
        dim: width of a token.
        heads: number of heads.
        dim_head: width of a head.
        landmarks: number of landmarks.
        iterations: iterations of the inverse.
        kernel: length of the depthwise convolution of the values that is added, odd.
        drop_rate: dropout of the output in training, 0 to below 1.

    Example:
        >>> attention = NystromAttention(16, heads=2, dim_head=8, landmarks=4)
        >>> attention(torch.rand(10, 16)).shape, attention.first(torch.rand(10, 16))[0].shape
        (torch.Size([10, 16]), torch.Size([16]))
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 8,
        dim_head: int = 64,
        landmarks: int = 256,
        iterations: int = 6,
        kernel: int = 33,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.heads, self.dim_head, self.landmarks, self.iterations = heads, dim_head, landmarks, iterations
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(drop_rate))
        self.res_conv = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        """Attend, and project; no residual."""
        padded, marks = self._prepare(x)
        queries, keys, values = self.to_qkv.weight.chunk(3)
        query, key, value = self._heads(x, queries), self._heads(padded, keys), self._heads(padded, values)
        read = F.scaled_dot_product_attention(marks.queries[None], key[None], value[None])[0]
        values_at_marks = iterated_inverse(marks.between, read, self.iterations)
        found = F.scaled_dot_product_attention(query[None], marks.keys[None], values_at_marks[None])[0]
        near = sequence_convolution(value.transpose(0, 1), self.res_conv.weight, len(padded) - len(x))
        return self.to_out((found.transpose(0, 1) + near).flatten(1))

    def first(self, x: Float[Tensor, "tokens dim"]) -> tuple[Float[Tensor, "dim"], Float[Tensor, "heads tokens"]]:
        """The output of `forward` for the first token, and its attention weights.

        Because of the approximate inverse the weights can be negative, and their sum is only about one.
        """
        padded, marks = self._prepare(x)
        before = len(padded) - len(x)
        weights = self._row(padded, marks, before)
        taps = self.res_conv.weight[:, 0, self.res_conv.kernel_size[0] // 2 :, 0]  # the first token follows zeros
        taps = taps[:, : len(x)]
        near = F.pad(taps, (before, len(x) - taps.shape[1]))
        seen = (weights + near) @ padded  # heads dim
        values = self.to_qkv.weight.chunk(3)[2].unflatten(0, (self.heads, -1))
        return self.to_out(torch.einsum("hd,hcd->hc", seen, values).flatten()), weights[:, before:]

    def row_weights(self, x: Float[Tensor, "tokens dim"], *, of_zeros: bool = False) -> Float[Tensor, "heads tokens"]:
        """The attention weights of the first token, or, with `of_zeros`, of the first of the prepended zeros.

        Without prepended zeros both are the same.
        """
        padded, marks = self._prepare(x)
        before = len(padded) - len(x)
        return self._row(padded, marks, 0 if of_zeros else before)[:, before:]

    def values(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens heads channels"]:
        """The values of each token."""
        return F.linear(x, self.to_qkv.weight.chunk(3)[2]).unflatten(-1, (self.heads, -1))

    def _heads(self, x: Tensor, weight: Tensor) -> Tensor:
        """A linear projection as a view (heads, tokens, channels)."""
        return F.linear(x, weight).unflatten(-1, (self.heads, -1)).transpose(0, 1)

    def _prepare(self, x: Tensor) -> tuple[Tensor, _Marks]:
        """The sequence with prepended zeros, and its landmarks."""
        padded = F.pad(x, (0, 0, -len(x) % self.landmarks, 0))
        means = padded.unflatten(0, (self.landmarks, -1)).mean(dim=1)
        queries, keys, _ = self.to_qkv.weight.chunk(3)
        query, key = self._heads(means, queries), self._heads(means, keys)
        between = (query @ key.mT * self.dim_head**-0.5).softmax(dim=-1)
        return padded, _Marks(query, key, between)

    def _row(self, padded: Tensor, marks: _Marks, row: int) -> Tensor:
        """The attention weights of one token."""
        queries, keys, _ = self.to_qkv.weight.chunk(3)
        scale = self.dim_head**-0.5
        query = self._heads(padded[row : row + 1], queries)
        nearest = (query @ marks.keys.mT * scale).softmax(dim=-1)  # heads 1 landmarks
        reach = iterated_inverse(marks.between.mT, nearest.mT, self.iterations)[..., 0]
        key = F.linear(padded, keys).unflatten(-1, (self.heads, -1))
        return _RowOfProduct.apply(reach, marks.queries * scale, key)


class _Marks(NamedTuple):
    """Landmarks of queries and keys, (heads, landmarks, channels), and attention between them."""

    queries: Tensor
    keys: Tensor
    between: Tensor


class _RowOfProduct(torch.autograd.Function):
    """reach softmax(marks keys^T), computed head by head, so that only the map of one head is stored."""

    @staticmethod
    def forward(ctx: Any, reach: Tensor, marks: Tensor, keys: Tensor) -> Tensor:
        ctx.save_for_backward(reach, marks, keys)
        maps = (_map(marks, keys, head) for head in range(len(marks)))
        return torch.stack([row @ weights for row, weights in zip(reach, maps, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reach, marks, keys = ctx.saved_tensors
        d_reach, d_marks, d_keys = torch.empty_like(reach), torch.empty_like(marks), torch.empty_like(keys)
        for head, (row, mark, d_row) in enumerate(zip(reach, marks, d_out, strict=True)):
            weights = _map(marks, keys, head)
            d_reach[head] = weights @ d_row
            weights.mul_(row[:, None]).mul_(d_row - d_reach[head][:, None])  # now the gradient before softmax
            d_marks[head] = weights @ keys[:, head]
            d_keys[:, head] = weights.t() @ mark
        return d_reach, d_marks, d_keys


def _map(marks: Tensor, keys: Tensor, head: int) -> Tensor:
    return torch.mm(marks[head], keys[:, head].t()).softmax(dim=-1)
