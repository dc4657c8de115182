"""ACMIL with gated attention: several attention branches with a diversity loss, and masking of top instances.

Paper: Zhang et al. 2023, "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
arXiv:2311.07125; code dazhangyu123/ACMIL@e53d19c, ACMIL_GA. The variant with multi-head
attention is in `acmil_mha`.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .attention_pool import Pooled, attention_pool, check_chunk
from .contract import BagOutput, Criterion, as_batch, labels_of, unbatch
from .layers import Classifier, DimReduction, GatedAttention
from .stkim import check_stkim, top_instances_to_hide

__all__ = ["ACMIL", "branch_losses"]


class ACMIL(nn.Module):
    """Attention branches k with a classifier each; the prediction is that of a classifier of their mean.

        h_i = ReLU(W bag_i);  a_k = softmax over i of the gated scores s_ki (see `regard.heads.attention_pool`)
        `branches`: mean over k of CE(C_k sum_i a_ki h_i, label), with labels and at least two branches
        `diversity`: mean over pairs k < l of cos(a_k, a_l)
        logits = C mean_k(sum_i a_ki h_i) + f

    Both losses have weight 1, as in the authors' code. Differs from it in speed and memory, and in that masked scores
    fit half precision. `regard.heads.plain.acmil` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances.
        hidden: width of the scoring layers.
        branches: number of branches; 5 in the paper, 1 is ABMIL.
        top: highest instances of each branch among which STKIM masks in training; 0 turns it off.
        hide_rate: share of them that is masked, 0 to 1; 0.6 in the paper, whose authors later found 0 more stable.
        chunk: instances of a block, for bags whose projection does not fit into memory; see `attention_pool`.

    Raises:
        ValueError: an option is out of range; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = ACMIL(384, 2, width=128).eval()(torch.rand(50, 384), labels=torch.tensor(1))
        >>> output.attention.shape, sorted(output.losses)
        (torch.Size([5, 50]), ['branches', 'diversity'])
    """

    paper: ClassVar[str] = "arXiv:2311.07125"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        hidden: int = 128,
        branches: int = 5,
        top: int = 10,
        hide_rate: float = 0.6,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        check_stkim(top, hide_rate)
        if branches < 1:
            raise ValueError(f"branches is {branches}; give at least 1, 5 as in the paper")
        self.dim_in, self.num_classes = dim_in, num_classes
        self.top, self.hide_rate, self.chunk = top, hide_rate, check_chunk(chunk)
        self.dimreduction = DimReduction(dim_in, width)
        self.attention = GatedAttention(width, hidden, maps=branches)
        self.classifier = nn.ModuleList(Classifier(width, num_classes) for _ in range(branches))
        self.classifier.requires_grad_(branches > 1)  # a single branch has no loss of its own
        self.Slide_classifier = Classifier(width, num_classes)

    def pool(self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None) -> Pooled:
        """The vector of each branch, and the scores before softmax."""
        masked = self.training and self.top > 0
        return attention_pool(
            bag,
            valid,
            self.dimreduction.fc1,
            self.attention.scorer,
            hide=partial(top_instances_to_hide, top=self.top, hide_rate=self.hide_rate) if masked else None,
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
        """Score the classes from the mean of the branches, and compute the losses of the branches."""
        given, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)
        features, scores = self.pool(bag, valid)
        attention = scores.softmax(dim=-1)
        slide = features.mean(dim=1)  # as under the mean attention
        branches = torch.stack([layer(features[:, index]) for index, layer in enumerate(self.classifier)], dim=1)
        losses = branch_losses(branches, attention[:, :, None], labels, criterion)
        logits = self.Slide_classifier(slide)
        return unbatch(BagOutput(logits=logits, attention=attention, losses=losses, features=slide), given)


def branch_losses(
    logits: Float[Tensor, "bags branches classes"],
    attention: Float[Tensor, "bags branches heads instances"],
    labels: Shaped[Tensor, "bags ..."] | None,
    criterion: Criterion,
) -> dict[str, Float[Tensor, ""]]:
    """The losses of the branches; none for a single branch.

    Args:
        logits: logits of the classifier of each branch.
        attention: attention of each branch and head.
        labels: one for each bag; without them only `diversity` is computed.
        criterion: a loss of rows of logits and labels.

    Example:
        >>> branch_losses(torch.zeros(1, 2, 3), torch.eye(2).view(1, 2, 1, 2), None, F.cross_entropy)
        {'diversity': tensor(0.)}
    """
    branches = logits.shape[1]
    if branches == 1:
        return {}
    losses = {}
    if labels is not None:
        losses["branches"] = criterion(logits.flatten(0, 1), labels.repeat_interleave(branches, dim=0))
    directions = F.normalize(attention.transpose(1, 2), dim=-1, eps=1e-8)  # bags heads branches instances
    similar = directions @ directions.transpose(-1, -2)
    first, second = torch.triu_indices(branches, branches, offset=1, device=similar.device)
    losses["diversity"] = similar[..., first, second].mean()
    return losses
