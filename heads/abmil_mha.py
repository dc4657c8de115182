"""ABMIL with multi-head attention from a learned query, the default of AEM's authors.

Source: dazhangyu123/AEM@4a928a8 architecture/transformer.py, MHA; for AEM see arXiv:2406.15303.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, unbatch
from .head_pool import QueryAttention, pool_under
from .layers import Classifier, DimReduction

__all__ = ["MultiHeadABMIL"]


class MultiHeadABMIL(nn.Module):
    """Multi-head attention of a learned query over the projected instances, and a linear classifier.

        h_i = ReLU(W bag_i);  a_k = softmax over i of (Q q)_k . (K h_i)_k / sqrt(width / heads)
        logits = C LayerNorm(O concat_k(sum_i a_ki (V h_i)_k)) + f

    The numbers are those of the authors' code, without keys and values of each instance (see
    `regard.heads.head_pool`); `regard.heads.plain.abmil_mha` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances, a multiple of `heads`.
        heads: number of attention heads; each has a map in `attention`.
        drop_rate: dropout after the heads in training, 0 to below 1.

    Raises:
        ValueError: the width is not a multiple of `heads`; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = MultiHeadABMIL(384, 2, width=128)(torch.rand(50, 384))
        >>> output.logits.shape, output.attention.shape
        (torch.Size([2]), torch.Size([8, 50]))
    """

    paper: ClassVar[str] = "arXiv:2406.15303"

    def __init__(
        self, dim_in: int, num_classes: int = 2, *, width: int = 512, heads: int = 8, drop_rate: float = 0.1
    ) -> None:
        super().__init__()
        self.dim_in, self.num_classes = dim_in, num_classes
        self.dimreduction = DimReduction(dim_in, width)
        self.attention = QueryAttention(width, heads, drop_rate=drop_rate)
        self.q = nn.Parameter(torch.empty(1, 1, width))
        nn.init.normal_(self.q, std=1e-6)
        self.classifier = Classifier(width, num_classes)

    def scores(
        self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None
    ) -> Float[Tensor, "bags heads instances"]:
        """Scores before softmax."""
        instances = self.dimreduction(bag.to(self.q.dtype))
        return pool_under(instances, valid, *self.attention.directions(self.q[0, 0]))[2]

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
        instances = self.dimreduction(bag.to(self.q.dtype))
        pooled, attention, _ = pool_under(instances, valid, *self.attention.directions(self.q[0, 0]))
        features = self.attention.read(pooled)
        return unbatch(BagOutput(logits=self.classifier(features), attention=attention, features=features), given)
