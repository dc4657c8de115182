"""ACMIL with multi-head attention: each branch is a learned query with several heads.

Paper: Zhang et al. 2023, arXiv:2311.07125; code dazhangyu123/ACMIL@e53d19c, ACMIL_MHA. The variant with gated
attention is in `acmil`.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .acmil import branch_losses
from .contract import BagOutput, Criterion, as_batch, labels_of, unbatch
from .head_pool import QueryAttention, pool_under
from .layers import Classifier, DimReduction
from .stkim import check_stkim, top_instances_to_hide

__all__ = ["MultiHeadACMIL"]

#: Layers of a branch that only its own classifier uses.
_READING = ("v_proj", "out_proj", "layer_norm")


class MultiHeadACMIL(nn.Module):
    """Branches b, each a learned query with several heads; the slide is read under their mean attention.

        h_i = ReLU(W bag_i);  a_bk = softmax over i of (Q_b q_b)_k . (K_b h_i)_k / sqrt(width / heads)
        `branches`: mean over b of CE(C_b read_b(a_b, h), label)
        `diversity`: mean over heads and pairs of branches of the cosine similarity of their attention
        logits = C read(mean_b a_b, h) + f,  read(a, h) = LayerNorm(O concat_k(sum_i a_ki (V h_i)_k))

    `attention` has branches x heads maps, branch by branch. The numbers are those of the authors' code, without keys
    and values of each instance (see `regard.heads.head_pool`); `regard.heads.plain.acmil_mha` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances, a multiple of `heads`.
        heads: attention heads of each branch.
        branches: number of branches; 5 in the paper.
        top: highest instances of each head among which STKIM masks in training; 0 turns it off.
        hide_rate: share of them that is masked, 0 to 1.
        drop_rate: dropout after the heads in training, 0 to below 1.

    Raises:
        ValueError: an option is out of range; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = MultiHeadACMIL(384, 2, width=128, branches=3)(torch.rand(50, 384), labels=torch.tensor(1))
        >>> output.attention.shape, sorted(output.losses)
        (torch.Size([24, 50]), ['branches', 'diversity'])
    """

    paper: ClassVar[str] = "arXiv:2311.07125"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        heads: int = 8,
        branches: int = 5,
        top: int = 10,
        hide_rate: float = 0.6,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_stkim(top, hide_rate)
        if branches < 1:
            raise ValueError(f"branches is {branches}; give at least 1, 5 as in the paper")
        self.dim_in, self.num_classes = dim_in, num_classes
        self.top, self.hide_rate = top, hide_rate
        self.dimreduction = DimReduction(dim_in, width)
        self.sub_attention = nn.ModuleList(QueryAttention(width, heads, drop_rate=drop_rate) for _ in range(branches))
        self.bag_attention = QueryAttention(width, heads, drop_rate=drop_rate, keys=False)
        self.q = nn.Parameter(torch.empty(1, branches, width))
        nn.init.normal_(self.q, std=1e-6)
        self.classifier = nn.ModuleList(Classifier(width, num_classes) for _ in range(branches))
        if branches == 1:  # a single branch has no loss of its own
            for part in (self.classifier, *(getattr(self.sub_attention[0], name) for name in _READING)):
                part.requires_grad_(False)
        self.Slide_classifier = Classifier(width, num_classes)

    def pool(
        self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None
    ) -> tuple[
        Float[Tensor, "bags maps width"], Float[Tensor, "bags maps instances"], Float[Tensor, "bags maps instances"]
    ]:
        """The mean instance under each map, the weights, and the scores before softmax."""
        found = [layer.directions(query) for layer, query in zip(self._branches(), self.q[0], strict=True)]
        masked = self.training and self.top > 0
        return pool_under(
            self.dimreduction(bag.to(self.q.dtype)),
            valid,
            torch.cat([directions for directions, _ in found]),
            torch.cat([constants for _, constants in found]),
            partial(top_instances_to_hide, top=self.top, hide_rate=self.hide_rate) if masked else None,
        )

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes under the mean attention of the branches, and compute the losses of the branches."""
        given, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)
        pooled, attention, _ = self.pool(bag, valid)
        each = pooled.unflatten(1, (len(self.sub_attention), -1))  # bags branches heads width
        layers = zip(self._branches(), self.classifier, strict=True)
        branches = torch.stack([last(layer.read(each[:, index])) for index, (layer, last) in enumerate(layers)], dim=1)
        slide = self.bag_attention.read(each.mean(dim=1))
        losses = branch_losses(branches, attention.unflatten(1, each.shape[1:3]), labels, criterion)
        logits = self.Slide_classifier(slide)
        return unbatch(BagOutput(logits=logits, attention=attention, losses=losses, features=slide), given)

    def _branches(self) -> list[QueryAttention]:
        return [layer for layer in self.sub_attention if isinstance(layer, QueryAttention)]
