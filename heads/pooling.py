"""Mean and max pooling of the instances' class scores, the simplest baselines.

Source: DearCaat/MHIM-MIL@9d0c91a modules/mean_max.py.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .attention_pool import check_chunk
from .blocks import in_blocks
from .contract import BagOutput, Criterion, as_batch, unbatch
from .layers import init_xavier

__all__ = ["MaxMIL", "MeanMIL"]


class _Pooling(nn.Module):
    """A layer that scores each instance, and `pool`, which turns a batch of bags into logits."""

    paper: ClassVar[str] = "arXiv:2307.15254"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        drop_rate: float = 0.25,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.dim_in, self.num_classes, self.chunk = dim_in, num_classes, check_chunk(chunk)
        self.head = nn.Sequential(
            nn.Linear(dim_in, width), nn.ReLU(inplace=True), nn.Dropout(drop_rate), nn.Linear(width, num_classes)
        )
        init_xavier(self)

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes. There are no further losses, so `labels` are ignored."""
        bags, valid = as_batch(bag, valid, self.dim_in)
        return unbatch(self.pool(bags, valid), bag)

    def pool(
        self, bags: Float[Tensor, "batch instances dim"], valid: Bool[Tensor, "batch instances"] | None
    ) -> BagOutput:
        """The logits of bags."""
        raise NotImplementedError


class MeanMIL(_Pooling):
    """Score each instance and take the mean: logits = C mean_i(ReLU(W bag_i + b)) + f.

    The mean is taken before the linear layer, which gives the same logits.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances.
        drop_rate: dropout of the projected instances in training, 0 to below 1; 0.25 in the authors' code.
        chunk: instances of a block, for bags whose projection does not fit into memory; the projection is then
            recomputed in the backward pass.

    Raises:
        ValueError: `chunk` is below 1; in `forward`, see `regard.heads.contract`.

    Example:
        >>> MeanMIL(384, 3)(torch.rand(50, 384)).logits.shape
        torch.Size([3])
    """

    def pool(
        self, bags: Float[Tensor, "batch instances dim"], valid: Bool[Tensor, "batch instances"] | None
    ) -> BagOutput:
        """The logits, and as features the mean of the projected instances."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        dtype = last.weight.dtype
        total = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=bags.device)
        for span, projected in in_blocks(self.head[:-1], bags, dtype, chunk=self.chunk):
            if valid is not None:
                projected = projected * valid[:, span, None]
            total = total + projected.sum(dim=1, dtype=total.dtype)
        features = (total / (bags.shape[1] if valid is None else valid.sum(dim=1, keepdim=True))).to(dtype)
        return BagOutput(logits=last(features), features=features)


class MaxMIL(_Pooling):
    """Score each instance and take the maximum: logits = max over i of C ReLU(W bag_i + b) + f.

    Arguments and errors are those of `MeanMIL`.

    Example:
        >>> MaxMIL(384, 3)(torch.rand(50, 384)).logits.shape
        torch.Size([3])
    """

    def pool(
        self, bags: Float[Tensor, "batch instances dim"], valid: Bool[Tensor, "batch instances"] | None
    ) -> BagOutput:
        """The logits."""
        dtype = next(self.parameters()).dtype
        highest = []
        for span, scores in in_blocks(self.head, bags, dtype, chunk=self.chunk):
            if valid is not None:
                scores = scores.masked_fill(~valid[:, span, None], -torch.inf)
            highest.append(scores.max(dim=1).values)
        return BagOutput(logits=torch.stack(highest).max(dim=0).values)
