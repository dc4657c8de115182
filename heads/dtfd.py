"""DTFD: a bag is dealt into pseudo-bags, what attention distils from each is a small bag of its own.

Paper: Zhang et al. 2022, "DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for Histopathology
Whole Slide Image Classification", CVPR 2022, arXiv:2203.12081; code hrzhang1123/DTFD-MIL@10964f4 Main_DTFD_MIL.py.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, finish, labels_of
from .layers import Classifier, DimReduction, GatedAttention, weighted_mean

__all__ = ["DTFD", "deal"]

Distillation = Literal["AFS", "MaxS", "MaxMinS"]


class DTFD(nn.Module):
    """Attention within pseudo-bags, then attention over what they distil; the second tier answers.

    Loss beside the bag's: `tier1`, the mean cross-entropy of the pseudo-bags against the bag's label. `attention` is
    that of an instance in its pseudo-bag times that of the pseudo-bag; where instances are distilled, that of the
    second tier on them. Differs from the authors' code: the second tier learns from detached features, which is what
    their two optimisers amount to, whose order of steps current PyTorch refuses; in evaluation the instances are dealt
    from a fixed seed, so that a bag's result is always the same.

    Args:
        dim_in: width of the features.
        num_classes: classes of the bag; the last is the one whose instances are looked for.
        width: of the projected instances.
        hidden: width of the scoring layers.
        groups: pseudo-bags, as many as there are instances at most; 4 in the code, 5 and 8 in the paper.
        distillation: `"AFS"` gives the second tier each pseudo-bag's vector, `"MaxS"` its highest instances for the
            last class, `"MaxMinS"` its highest and lowest.
        distilled: highest instances in all, divided among the pseudo-bags.

    Raises:
        ValueError: an option is out of range; in `forward`, as the contract says.

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
                f"group, at least as many distilled instances, and one of {', '.join(get_args(Distillation))}"
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
        """Score the classes by the second tier; with labels, give the loss `tier1` too."""
        asked, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)

        def one(instances: Tensor, place: int) -> BagOutput:
            return self._one(instances, None if labels is None else labels[place], criterion)

        return finish(bag_by_bag(one, bag, valid), asked)

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
        """The highest instances of a pseudo-bag, and the lowest after them if they are wanted.

        An instance is as high as its class activation for the last class: w_c . (a_i h_i), softmax over the classes c.
        """
        activation = (share[:, None].to(projected.dtype) * projected) @ self.classifier.fc.weight.t()
        order = activation.softmax(dim=-1)[:, -1].sort(descending=True).indices
        count = self.distilled // self.groups
        return torch.cat([order[:count], order[-count:]]) if self.distillation == "MaxMinS" else order[:count]


def deal(count: int, groups: int, training: bool, device: torch.device) -> list[Int[Tensor, "group"]]:
    """Deal `count` instances at random into groups that differ by one at most; from a fixed seed outside training.

    Example:
        >>> [len(group) for group in deal(10, 4, False, torch.device("cpu"))]
        [3, 3, 2, 2]
    """
    generator = None if training else torch.Generator().manual_seed(count)
    order = torch.randperm(count, generator=generator).to(device)
    return list(order.tensor_split(groups))
