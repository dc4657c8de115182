"""Nystrom attention, as TransMIL uses it, with less work for the same numbers.

Paper: Xiong et al. 2021, "Nystromformer: A Nystrom-based Algorithm for Approximating Self-Attention",
arXiv:2102.03902; lucidrains/nystrom-attention 0.0.14 is what TransMIL imports.

    softmax(Q K~^T) pinv(softmax(Q~ K~^T)) softmax(Q~ K^T) V,   ~ the means of groups of neighbouring tokens

What is done otherwise, to the same numbers up to rounding: products are taken from the right, so that the first and
the last softmax are ordinary attention (with the rest as values) and never stored; the means are of the tokens, before
their linear projection; the iteration for the inverse is three fused products; where one row alone is wanted (the class
token of a last layer), products are taken from the left, without queries or values of all tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .depthwise import sequence_convolution

__all__ = ["NystromAttention", "iterated_inverse"]


def iterated_inverse(
    matrix: Float[Tensor, "heads landmarks landmarks"], iterations: int
) -> Float[Tensor, "heads landmarks landmarks"]:
    """The Moore-Penrose inverse by iteration; equation 11 of the paper.

    The start is A^T over the product of the largest column and row sums of all heads, as in the authors' code; theirs
    takes them over the batch too, so that a bag's result depended on the others.

    Example:
        >>> iterated_inverse(torch.eye(2)[None], 6)
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    sizes = matrix.abs()
    found = matrix.mT / (sizes.sum(dim=-1).amax() * sizes.sum(dim=-2).amax())
    for _ in range(iterations):
        near = matrix @ found
        step = torch.baddbmm(near, near, near, beta=7, alpha=-1)  # near (7 - near)
        step = torch.baddbmm(near, near, step, beta=15, alpha=-1)
        found = torch.baddbmm(found, found, step, beta=13 / 4, alpha=-1 / 4)
    return found


class NystromAttention(nn.Module):
    """Self-attention of one sequence by way of landmarks; zeros are put before it up to a multiple of their number.

    Args:
        dim: width of a token.
        heads: how many.
        dim_head: width of a head.
        landmarks: means that stand for the sequence.
        iterations: for the inverse.
        kernel: length of the convolution of the values that is added, odd.
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
        before, padded = self._pad(x)
        query, key, value = self._heads(F.linear(padded, self.to_qkv.weight), 3)
        query_marks, key_marks, inverse = self._marks(padded)
        read = F.scaled_dot_product_attention(query_marks[None], key[None], value[None])[0]
        found = F.scaled_dot_product_attention(query[None, :, before:], key_marks[None], (inverse @ read)[None])[0]
        near = sequence_convolution(value.transpose(0, 1)[before:], self.res_conv.weight)
        return self.to_out((found.transpose(0, 1) + near).flatten(1))

    def first(self, x: Float[Tensor, "tokens dim"]) -> tuple[Float[Tensor, "dim"], Float[Tensor, "heads tokens"]]:
        """What `forward` gives for the first token, and the weights under which it reads the sequence.

        The weights come through an approximate inverse: they can be negative, and sum to about one.
        """
        before, padded = self._pad(x)
        weights = self.row_weights(padded, before)
        seen = weights @ padded  # heads dim
        values = self.to_qkv.weight.chunk(3)[2].unflatten(0, (self.heads, -1))
        found = torch.einsum("hd,hcd->hc", seen, values)
        taps = self.res_conv.weight[:, 0, self.res_conv.kernel_size[0] // 2 :, 0]  # zeros stand before the first
        following = taps[:, : len(x)] @ x[: taps.shape[1]]  # heads dim
        near = torch.einsum("hd,hcd->hc", following, values)
        return self.to_out((found + near).flatten()), weights[:, before:]

    def row_weights(self, padded: Float[Tensor, "padded dim"], row: int) -> Float[Tensor, "heads padded"]:
        """Weights of all tokens for one of them."""
        query_marks, key_marks, inverse = self._marks(padded)
        queries, keys, _ = self.to_qkv.weight.chunk(3)
        (query,) = self._heads(F.linear(padded[row : row + 1], queries), 1)
        scale = self.dim_head**-0.5
        reach = (query @ key_marks.mT * scale).softmax(dim=-1) @ inverse  # heads 1 landmarks
        (key,) = self._heads(F.linear(padded, keys), 1)
        # head by head, a map of landmarks by tokens at a time
        return torch.cat(
            [
                reach[head] @ (query_marks[head] @ key[head].mT * scale).softmax(dim=-1)
                for head in range(self.heads)
            ]
        )

    def values(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens heads channels"]:
        """What each token gives to be read."""
        return F.linear(x, self.to_qkv.weight.chunk(3)[2]).unflatten(-1, (self.heads, -1))

    def _pad(self, x: Tensor) -> tuple[int, Tensor]:
        before = -len(x) % self.landmarks
        return before, F.pad(x, (0, 0, before, 0))

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Views (heads, tokens, channels)."""
        return projected.unflatten(-1, (parts, self.heads, -1)).permute(1, 2, 0, 3).unbind(0)

    def _marks(self, padded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks of queries and keys, and the inverse between them."""
        means = padded.unflatten(0, (self.landmarks, -1)).mean(dim=1)
        query, key = self._heads(F.linear(means, self.to_qkv.weight[: 2 * self.heads * self.dim_head]), 2)
        between = (query @ key.mT * self.dim_head**-0.5).softmax(dim=-1)
        return query, key, iterated_inverse(between, self.iterations)
