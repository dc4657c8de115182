"""ABMIL: gated attention pooling of a bag.

Paper: Ilse, Tomczak, Welling 2018, "Attention-based Deep Multiple Instance Learning", arXiv:1802.04712; for features of
a frozen encoder as in dazhangyu123/AEM@4a928a8: a projection with ReLU, gated attention, a linear classifier.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .attention_pool import Pooled, attention_pool, check_chunk
from .contract import BagOutput, Criterion, as_batch, unbatch
from .layers import Classifier, DimReduction, GatedAttention

__all__ = ["ABMIL"]


class ABMIL(nn.Module):
    """Attention pooling of the instances and a linear classifier.

        h_i = ReLU(W bag_i);  a = softmax over i of w . (tanh(V h_i + c) * sigmoid(U h_i + d)) + e
        logits = C sum_i a_i h_i + f

    Differs from AEM's code in speed and memory only (see `regard.heads.attention_pool`); `regard.heads.plain.abmil` is
    the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances; the authors use half the encoder's, at most 768.
        hidden: width of the scoring layers.
        gated: whether the scores have the sigmoid gate (equation 9 of the paper); otherwise equation 8.
        bias: whether the projection has a bias; AEM's has none.
        drop_rate: dropout of the projected instances in training, 0 to below 1.
        chunk: instances of a block, for bags whose projection does not fit into memory; see `attention_pool`.

    Raises:
        ValueError: `chunk` is below 1; in `forward`, see `regard.heads.contract`.

    Example:
        >>> import torch
        >>> output = ABMIL(384, 2, width=128)(torch.rand(50, 384))
        >>> output.logits.shape, output.attention.shape
        (torch.Size([2]), torch.Size([1, 50]))
    """

    paper: ClassVar[str] = "arXiv:1802.04712"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        hidden: int = 128,
        gated: bool = True,
        bias: bool = False,
        drop_rate: float = 0.0,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.dim_in, self.num_classes = dim_in, num_classes
        self.drop_rate, self.chunk = drop_rate, check_chunk(chunk)
        self.dimreduction = DimReduction(dim_in, width, bias=bias)
        self.attention = GatedAttention(width, hidden, gated=gated)
        self.classifier = Classifier(width, num_classes)

    def pool(self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None) -> Pooled:
        """The pooled vector of each bag, and the scores before softmax."""
        return attention_pool(
            bag,
            valid,
            self.dimreduction.fc1,
            self.attention.scorer,
            drop_rate=self.drop_rate if self.training else 0.0,
            chunk=self.chunk,
        )

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
        features, scores = self.pool(bag, valid)
        output = BagOutput(
            logits=self.classifier(features[:, 0]), attention=scores.softmax(dim=-1), features=features[:, 0]
        )
        return unbatch(output, given)
