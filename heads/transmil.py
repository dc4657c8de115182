"""TransMIL: the instances of a bag attend to each other, on a square that gives them a place.

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

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, finish
from .depthwise import grid_convolution
from .nystrom import NystromAttention

__all__ = ["PPEG", "NystromLayer", "TransMIL", "read_weights"]


class TransMIL(nn.Module):
    """Two layers of Nystrom attention with a convolution over the squared bag between them; the class token answers.

    The order of the instances matters: the square is filled row by row, so tiles should come in the order of a scan.
    Differs from the authors' code: a bag's result does not depend on the others of its batch; of the last layer, whose
    class token alone is used, only that is computed; the rest is in `regard.heads.nystrom` and
    `regard.heads.depthwise`.
    `attention` is how the class token of the last layer reads the instances, clipped at zero and normalised, since the
    approximation makes negative weights; instances that fill up the square count for where they came from.

    Args:
        dim_in: width of the features.
        num_classes: classes of the bag.
        width: of the tokens, a multiple of `heads`; half of it are landmarks.
        heads: of the attention.
        drop_rate: dropout after either attention in training, 0 to below 1.

    Raises:
        ValueError: the heads do not share the width; in `forward`, as the contract says.

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
            raise ValueError(f"{heads} heads cannot share a width of {width}; give a width that {heads} divides")
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
        """Score the classes; there are no further losses, so that labels are not looked at."""
        asked = bag
        bag, valid = as_batch(bag, valid, self.dim_in)
        return finish(bag_by_bag(self._one, bag, valid), asked)

    def _one(self, bag: Float[Tensor, "instances dim"], place: int) -> BagOutput:
        tokens = self._fc1(bag.to(self.cls_token.dtype))
        count, side = len(bag), math.isqrt(len(bag) - 1) + 1
        repeated = [tokens[: side**2 - count]] if side**2 > count else []
        tokens = torch.cat([self.cls_token[0].to(tokens.dtype), tokens, *repeated])
        token, tokens = self.layer1(tokens).split([1, side**2])
        tokens = torch.cat([token, self.pos_layer(tokens.unflatten(0, (side, side))).flatten(0, 1)])
        token, weights = self.layer2.first(tokens)
        features = self.norm(token)
        return BagOutput(logits=self._fc2(features), attention=read_weights(weights[:, 1:], count), features=features)


class NystromLayer(nn.Module):
    """Layer norm, Nystrom attention, and the residual.

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
        """All tokens."""
        return x + self.attn(self.norm(x))

    def first(self, x: Float[Tensor, "tokens width"]) -> tuple[Float[Tensor, "width"], Float[Tensor, "heads tokens"]]:
        """The first token, and how it reads the others; see `NystromAttention.first`."""
        found, weights = self.attn.first(self.norm(x))
        return x[0] + found, weights


class PPEG(nn.Module):
    """Convolutions of three sizes that tell a token its place; with the residual they are one of the largest size.

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
        """Add the convolutions to a grid of tokens."""
        weight = self.proj.weight + F.pad(self.proj1.weight, (1, 1, 1, 1)) + F.pad(self.proj2.weight, (2, 2, 2, 2))
        itself = torch.zeros_like(weight[0, 0])
        itself[3, 3] = 1
        biases = [part.bias for part in (self.proj, self.proj1, self.proj2) if part.bias is not None]
        return grid_convolution(x, weight + itself, torch.stack(biases).sum(dim=0))


def read_weights(weights: Float[Tensor, "heads tokens"], count: int) -> Float[Tensor, "heads instances"]:
    """Attention over instances from weights of tokens, of which those beyond `count` repeat the first.

    Example:
        >>> read_weights(torch.tensor([[0.2, 0.5, -0.1, 0.3]]), 3)
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    there = weights.float().clamp(min=0)
    repeated = F.pad(there[:, count:], (0, 2 * count - there.shape[1]))
    there = there[:, :count] + repeated
    total = there.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, there / total.clamp(min=torch.finfo(there.dtype).tiny), 1 / count)
