"""DTFD: attention within pseudo-bags, and attention over the features that are distilled from them.

Paper: Zhang et al. 2022, "DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for Histopathology
Whole Slide Image Classification", CVPR 2022, arXiv:2203.12081; code hrzhang1123/DTFD-MIL@10964f4 Main_DTFD_MIL.py.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, labels_of, unbatch
from .layers import Classifier, DimReduction, GatedAttention, weighted_mean

__all__ = ["DTFD", "deal"]

Distillation = Literal["AFS", "MaxS", "MaxMinS"]


class DTFD(nn.Module):
    """A first tier pools random pseudo-bags of a bag, a second tier pools what is distilled from them.

        h_i = ReLU(W bag_i)
        tier 1, for each pseudo-bag g: a_g = softmax over i in g of the gated scores;  z_g = sum over i of a_gi h_i
        `tier1`: mean over g of CE(C z_g + f, label)
        tier 2: logits = C' sum_j b_j x_j + f',  b = softmax over j of the gated scores of x_j

    x are the detached z_g, or the h_i of instances chosen by class activation (see `distillation`). `attention` is
    a_gi b_g, or b of the chosen instances. Differs from the authors' code: the second tier learns from detached
    features, which is equivalent to their two optimisers, whose order of steps current PyTorch rejects; in evaluation
    the pseudo-bags are drawn with a fixed seed, so that the result for a bag is always the same.
    `regard.heads.plain.dtfd` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes; class activation is taken for the last one.
        width: width of the projected instances.
        hidden: width of the scoring layers.
        groups: number of pseudo-bags, at most that of the instances; 4 in the code, 5 and 8 in the paper.
        distillation: `"AFS"` passes the vector of each pseudo-bag to the second tier, `"MaxS"` its instances with
            the highest class activation, `"MaxMinS"` those with the highest and lowest.
        distilled: number of highest instances, divided among the pseudo-bags.

    Raises:
        ValueError: an option is out of range; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = DTFD(384, 2, width=128)(torch.rand(50, 384), labels=torch.tensor(1))
        >>> output.attention.shape, sorted(output.losses)
        (torch.Size([1, 50]), ['tier1'])
    """

    paper: ClassVar[str] = "arXiv:2203.12081"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        hidden: int = 128,
        groups: int = 4,
        distillation: Distillation = "AFS",
        distilled: int = 4,
    ) -> None:
        super().__init__()
        if groups < 1 or distilled < groups or distillation not in get_args(Distillation):
            raise ValueError(
                f"groups is {groups}, distilled {distilled} and distillation {distillation!r}; give at least one "
                f"group, distilled of at least as many, and one of {', '.join(get_args(Distillation))}"
            )
        self.dim_in, self.num_classes = dim_in, num_classes
        self.groups, self.distillation, self.distilled = groups, distillation, distilled
        self.dim_reduction = DimReduction(dim_in, width)
        self.attention = GatedAttention(width, hidden)
        self.classifier = Classifier(width, num_classes)
        self.att_classifier = nn.ModuleDict(
            {"attention": GatedAttention(width, hidden), "classifier": Classifier(width, num_classes)}
        )

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes by the second tier; with labels, compute the loss `tier1` too."""
        given, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)

        def one(instances: Tensor, index: int) -> BagOutput:
            return self._one(instances, None if labels is None else labels[index], criterion)

        return unbatch(bag_by_bag(one, bag, valid), given)

    def _one(
        self, bag: Float[Tensor, "instances dim"], label: Shaped[Tensor, "..."] | None, criterion: Criterion
    ) -> BagOutput:
        projected = self.dim_reduction(bag.to(self.classifier.fc.weight.dtype))
        scores = self.attention(projected)[0]
        vectors, chosen, shares = [], [], []
        for group in deal(len(bag), min(self.groups, len(bag)), self.training, bag.device):
            share = scores[group].float().softmax(dim=0)
            vectors.append(weighted_mean(share[None], projected[group])[0])
            shares.append((group, share))
            chosen.append(group[self.distil(projected[group], share)])
        features = torch.stack(vectors)
        losses = {}
        if label is not None:
            losses["tier1"] = criterion(self.classifier(features), label[None].expand(len(features), *label.shape))
        second = features if self.distillation == "AFS" else projected[torch.cat(chosen)]
        second = second.detach()
        weights = self.att_classifier["attention"](second)[0].float().softmax(dim=0)
        pooled = weighted_mean(weights[None], second)[0]
        attention = torch.zeros(len(bag), dtype=weights.dtype, device=bag.device)
        if self.distillation == "AFS":
            for weight, (group, share) in zip(weights, shares, strict=True):
                attention = attention.index_add(0, group, weight * share)
        else:
            attention = attention.index_add(0, torch.cat(chosen), weights)
        logits = self.att_classifier["classifier"](pooled)
        return BagOutput(logits=logits, attention=attention[None], losses=losses, features=pooled)

    @torch.no_grad()
    def distil(
        self, projected: Float[Tensor, "instances width"], share: Float[Tensor, "instances"]
    ) -> Int[Tensor, "chosen"]:
        """Indices of the instances of a pseudo-bag with the highest class activation, then of the lowest for MaxMinS.

        The class activation is that of the last class in softmax over c of C_c . (share_i projected_i).
        """
        activation = (share[:, None].to(projected.dtype) * projected) @ self.classifier.fc.weight.t()
        order = activation.softmax(dim=-1)[:, -1].sort(descending=True).indices
        count = self.distilled // self.groups
        return torch.cat([order[:count], order[-count:]]) if self.distillation == "MaxMinS" else order[:count]


def deal(count: int, groups: int, training: bool, device: torch.device) -> list[Int[Tensor, "group"]]:
    """Split `count` instances at random into groups of nearly equal size; with a fixed seed outside training.

    Example:
        >>> [len(group) for group in deal(10, 4, False, torch.device("cpu"))]
        [3, 3, 2, 2]
    """
    generator = None if training else torch.Generator().manual_seed(count)
    order = torch.randperm(count, generator=generator).to(device)
    return list(order.tensor_split(groups))
