"""TransMIL: Nystrom self-attention between the instances of a bag, with convolutional position encoding.

Paper: Shao et al. 2021, "TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image
Classification", arXiv:2106.00908; code szc19990412/TransMIL@9d6aee5 models/TransMIL.py.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, unbatch
from .depthwise import grid_convolution
from .nystrom import NystromAttention

__all__ = ["PPEG", "NystromLayer", "TransMIL", "instance_attention"]


class TransMIL(nn.Module):
    """Two layers of Nystrom attention with convolutions over the bag, laid out as a square, between them.

        T = [class token; ReLU(W bag_i + b); the first instances again, up to a square number]
        T = T + attend_1(LayerNorm(T));  T = PPEG(T);  T = T + attend_2(LayerNorm(T))
        logits = C LayerNorm(T_class) + f

    The order of the instances matters: the square is filled row by row, so patches should be in scan order. Differs
    from the authors' code: the result for a bag does not depend on the others of its batch; of the last layer only the
    class token is computed; for the rest see `regard.heads.nystrom` and `regard.heads.depthwise`. `attention` is the
    row of the class token in the last layer, clipped at zero, since the approximation can be negative, and normalised;
    the weight of a repeated instance is added to that of the original. `regard.heads.plain.transmil` is the plain
    formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the tokens, a multiple of `heads`; there are half as many landmarks.
        heads: heads of each attention.
        drop_rate: dropout after each attention in training, 0 to below 1.

    Raises:
        ValueError: the width is not a multiple of `heads`; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = TransMIL(384, 2, width=64)(torch.rand(50, 384))
        >>> output.logits.shape, output.attention.shape
        (torch.Size([2]), torch.Size([8, 50]))
    """

    paper: ClassVar[str] = "arXiv:2106.00908"

    def __init__(
        self, dim_in: int, num_classes: int = 2, *, width: int = 512, heads: int = 8, drop_rate: float = 0.1
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads or width < 2:
            raise ValueError(f"a width of {width} is not a multiple of {heads} heads; give a width that is")
        self.dim_in, self.num_classes = dim_in, num_classes
        self.pos_layer = PPEG(width)
        self._fc1 = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(inplace=True))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.layer1 = NystromLayer(width, heads=heads, drop_rate=drop_rate)
        self.layer2 = NystromLayer(width, heads=heads, drop_rate=drop_rate)
        self.norm = nn.LayerNorm(width)
        self._fc2 = nn.Linear(width, num_classes)

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes. There are no further losses, so `labels` are ignored."""
        given = bag
        bag, valid = as_batch(bag, valid, self.dim_in)
        return unbatch(bag_by_bag(self._one, bag, valid), given)

    def _one(self, bag: Float[Tensor, "instances dim"], index: int) -> BagOutput:
        tokens = self._fc1(bag.to(self.cls_token.dtype))
        count, side = len(bag), math.isqrt(len(bag) - 1) + 1
        repeated = [tokens[: side**2 - count]] if side**2 > count else []
        tokens = torch.cat([self.cls_token[0].to(tokens.dtype), tokens, *repeated])
        token, tokens = self.layer1(tokens).split([1, side**2])
        tokens = torch.cat([token, self.pos_layer(tokens.unflatten(0, (side, side))).flatten(0, 1)])
        token, weights = self.layer2.first(tokens)
        features = self.norm(token)
        return BagOutput(
            logits=self._fc2(features), attention=instance_attention(weights[:, 1:], count), features=features
        )


class NystromLayer(nn.Module):
    """Nystrom attention with a pre-norm and a residual connection.

    Example:
        >>> NystromLayer(64)(torch.rand(10, 64)).shape
        torch.Size([10, 64])
    """

    def __init__(self, width: int, *, heads: int = 8, dim_head: int | None = None, drop_rate: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = NystromAttention(
            width,
            heads=heads,
            dim_head=dim_head or width // heads,
            landmarks=width // 2,
            drop_rate=drop_rate,
        )

    def forward(self, x: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens width"]:
        """Mix all tokens."""
        return x + self.attn(self.norm(x))

    def first(self, x: Float[Tensor, "tokens width"]) -> tuple[Float[Tensor, "width"], Float[Tensor, "heads tokens"]]:
        """The output for the first token, and its attention weights; see `NystromAttention.first`."""
        found, weights = self.attn.first(self.norm(x))
        return x[0] + found, weights


class PPEG(nn.Module):
    """Position encoding by depthwise convolutions of sides 7, 5 and 3: x + proj(x) + proj1(x) + proj2(x).

    The kernels and the identity are summed to one kernel of side 7.

    Example:
        >>> PPEG(8)(torch.rand(3, 3, 8)).shape
        torch.Size([3, 3, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.proj1 = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.proj2 = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Float[Tensor, "height width channels"]) -> Float[Tensor, "height width channels"]:
        """Encode the positions of a grid of tokens."""
        weight = self.proj.weight + F.pad(self.proj1.weight, (1, 1, 1, 1)) + F.pad(self.proj2.weight, (2, 2, 2, 2))
        itself = torch.zeros_like(weight[0, 0])
        itself[3, 3] = 1
        biases = [part.bias for part in (self.proj, self.proj1, self.proj2) if part.bias is not None]
        return grid_convolution(x, weight + itself, torch.stack(biases).sum(dim=0))


def instance_attention(weights: Float[Tensor, "heads tokens"], count: int) -> Float[Tensor, "heads instances"]:
    """Attention over instances from that over tokens, of which those after `count` repeat the first.

    Example:
        >>> instance_attention(torch.tensor([[0.2, 0.5, -0.1, 0.3]]), 3)
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    attention = weights.float().clamp(min=0)
    repeated = F.pad(attention[:, count:], (0, 2 * count - attention.shape[1]))
    attention = attention[:, :count] + repeated
    total = attention.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, attention / total.clamp(min=torch.finfo(attention.dtype).tiny), 1 / count)
