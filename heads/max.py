"""Max pooling of the instances' class scores.

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

__all__ = ["MaxMIL"]


class MaxMIL(nn.Module):
    """Score each instance and take the maximum: logits = max over i of C ReLU(W bag_i + b) + f.

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
        >>> MaxMIL(384, 3)(torch.rand(50, 384)).logits.shape
        torch.Size([3])
    """

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
        given = bag
        bag, valid = as_batch(bag, valid, self.dim_in)
        dtype = next(self.parameters()).dtype
        highest = []
        for span, scores in in_blocks(self.head, bag, dtype, chunk=self.chunk):
            if valid is not None:
                scores = scores.masked_fill(~valid[:, span, None], -torch.inf)
            highest.append(scores.max(dim=1).values)
        return unbatch(BagOutput(logits=torch.stack(highest).max(dim=0).values), given)
