"""Mean of the instances' class scores, the plainest head and a strong one where most of a slide is what it is.

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
from .contract import BagOutput, Criterion, as_batch, finish
from .layers import init_xavier

__all__ = ["MeanMIL"]


class MeanMIL(nn.Module):
    """Each instance is projected and scored; a bag's score of a class is the mean.

    Scoring is linear, so the mean is taken of what goes into it.

    Args:
        dim_in: width of the features.
        num_classes: classes of the bag.
        width: of the projected instances.
        drop_rate: dropout of the projected instances in training, 0 to below 1; 0.25 as the authors have it.
        chunk: instances at a time, where a bag's projection does not fit into memory; it is made again for the
            gradient.

    Raises:
        ValueError: `chunk` is below 1; in `forward`, as the contract says.

    Example:
        >>> MeanMIL(384, 3)(torch.rand(50, 384)).logits.shape
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
        """Score the classes; there are no further losses, so that labels are not looked at."""
        asked = bag
        bag, valid = as_batch(bag, valid, self.dim_in)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        dtype = last.weight.dtype
        total = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=bag.device)
        for place, projected in in_blocks(self.head[:-1], bag, dtype, chunk=self.chunk):
            if valid is not None:
                projected = projected * valid[:, place, None]
            total = total + projected.sum(dim=1, dtype=total.dtype)
        features = (total / (bag.shape[1] if valid is None else valid.sum(dim=1, keepdim=True))).to(dtype)
        return finish(BagOutput(logits=last(features), features=features), asked)
