"""INS: instances get pseudo labels from prototypes and learn to tell them apart; a bag is what its instances are.

Paper: Qu et al. 2023, "Rethinking Multiple Instance Learning for Whole Slide Image Classification: A Good Instance
Classifier is All You Need", arXiv:2307.02249; code miccaiif/INS@cd97ba2.
"""

from __future__ import annotations

import copy
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, finish, labels_of

__all__ = ["INS", "contrast"]


class INS(nn.Module):
    """An instance classifier whose mean probability is the bag's; class 0 must be the negative one.

    Instances of a bag of class c may be of class 0 or c. In training with labels, the losses beside the bag's, whose
    weight is 1/2: `instances`, cross-entropy against the allowed class whose prototype is most like the instance, and
    `contrast` (weight 1/2), by which instances of one pseudo label come together, against a slowly following copy of
    the network and a queue of what it said before; while `progress` is below `warm_up` each instance has only itself.
    Prototypes, queue and copy change in `after_step()`, to be called after each step of the optimiser.

    Differs from the authors' code, which trains a ResNet on augmented tiles: here features are frozen, so that dropout
    alone makes two views of an instance; their running pseudo label of every training instance is replaced by its
    starting value, all allowed classes alike, at the same falling weight; a bag's own loss is taken of the mean
    probability, not of a separate attention head. `attention` is each instance's share in a class's probability.

    Args:
        dim_in: width of the features.
        num_classes: classes of the bag, at least 2.
        width: of the projected instances.
        embedding: width in which instances are compared.
        queue: how many earlier instances are remembered.
        sampled: instances of a bag that the losses look at, drawn at random.
        temperature: of the contrast, above 0.
        momentum: of the copy, 0 to 1.
        prototype_momentum: of the prototypes, 0 to 1.
        warm_up: share of the training, 0 to 1; one epoch of forty in the authors' runs.
        drop_rate: dropout of the projected instances in training.

    Raises:
        ValueError: fewer than two classes, or an option out of range; in `forward`, as the contract says.

    Example:
        >>> head = INS(384, 2, width=64)
        >>> output = head(torch.rand(50, 384), labels=torch.tensor(1))
        >>> sorted(output.losses), output.attention.shape
        (['contrast', 'instances'], torch.Size([2, 50]))
        >>> head.after_step()
    """

    paper: ClassVar[str] = "arXiv:2307.02249"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        embedding: int = 128,
        queue: int = 8192,
        sampled: int = 256,
        temperature: float = 0.07,
        momentum: float = 0.999,
        prototype_momentum: float = 0.9,
        warm_up: float = 0.025,
        drop_rate: float = 0.25,
    ) -> None:
        super().__init__()
        if num_classes < 2 or min(queue, sampled) < 1 or temperature <= 0:
            raise ValueError(
                f"num_classes is {num_classes}, queue {queue}, sampled {sampled} and temperature {temperature}; give "
                "at least 2 classes (0 is the negative one), at least 1 instance, and a temperature above 0"
            )
        if not all(0 <= share <= 1 for share in (momentum, prototype_momentum, warm_up)):
            raise ValueError(
                f"momentum is {momentum}, prototype_momentum {prototype_momentum} and warm_up {warm_up}; give 0 to 1"
            )
        self.dim_in, self.num_classes, self.sampled = dim_in, num_classes, sampled
        self.temperature, self.momentum, self.prototype_momentum = temperature, momentum, prototype_momentum
        self.warm_up, self.progress = warm_up, 0.0
        self.encoder = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), nn.Dropout(drop_rate))
        self.fc = nn.Linear(width, num_classes)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, embedding))
        self.key = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        self.queue: Tensor
        self.queue_labels: Tensor
        self.prototypes: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(queue, embedding), dim=-1))
        self.register_buffer("queue_labels", torch.full((queue,), -1))  # -1: nothing is remembered here yet
        self.register_buffer("prototypes", torch.zeros(num_classes, embedding))
        self._seen: list[_Seen] = []

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Int[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes; in training with labels (0 to num_classes - 1), give both losses too."""
        asked, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)
        self._seen = []

        def one(instances: Tensor, place: int) -> BagOutput:
            return self._one(instances, None if labels is None else int(labels[place]))

        return finish(bag_by_bag(one, bag, valid), asked)

    def after_step(self) -> None:
        """Let the copy follow the network, the prototypes the instances, and the queue take them in."""
        with torch.no_grad():
            own = nn.ModuleList([self.encoder, self.head]).parameters()
            for slow, fast in zip(self.key.parameters(), own, strict=True):
                slow.lerp_(fast.to(slow.dtype), 1 - self.momentum)
            for seen in self._seen:
                self._remember(seen)
        self._seen = []

    def _one(self, bag: Float[Tensor, "instances dim"], label: int | None) -> BagOutput:
        bag = bag.to(self.fc.weight.dtype)
        projected = self.encoder(bag)
        scores = self.fc(projected)
        chances = scores.float().softmax(dim=-1)
        logits = chances.mean(dim=0).clamp(min=torch.finfo(chances.dtype).tiny).log().to(scores.dtype)
        attention = (chances / chances.sum(dim=0)).t()
        losses: dict[str, Tensor] = {}
        if label is not None and self.training:
            if not 0 <= label < self.num_classes:
                raise ValueError(f"a bag has label {label}, but there are {self.num_classes} classes, counted from 0")
            chosen = torch.randperm(len(bag), device=bag.device)[: self.sampled]
            losses = self._learn(bag[chosen], projected[chosen], scores[chosen], label)
        return BagOutput(logits=logits, attention=attention, losses=losses, bag_weight=0.5 if losses else 1.0)

    def _learn(self, bag: Tensor, projected: Tensor, scores: Tensor, label: int) -> dict[str, Tensor]:
        query = F.normalize(self.head(projected), dim=-1)
        with torch.no_grad():
            key = F.normalize(self.key(bag), dim=-1)
            allowed = scores.new_zeros(self.num_classes)
            allowed[[0, label]] = 1
            pseudo = (scores.softmax(dim=-1) * allowed).argmax(dim=-1)
            nearest = ((query @ self.prototypes.to(query.dtype).t()).softmax(dim=-1) * allowed).argmax(dim=-1)
            share = 0.95 - 0.15 * self.progress
            target = share * allowed / allowed.sum() + (1 - share) * F.one_hot(nearest, self.num_classes)
        self._seen.append(_Seen(query.detach(), key, pseudo))
        remembered = self.queue.to(query.dtype)
        others = torch.cat([query, key, remembered])
        if self.progress < self.warm_up:
            names = torch.arange(len(query), device=query.device)
            there = torch.cat([torch.full_like(names, -1), names, torch.full_like(self.queue_labels, len(names))])
        else:
            names = pseudo
            there = torch.cat([pseudo, pseudo, self.queue_labels])
        found = contrast(query, names, others, there, self.temperature)
        return {"instances": F.cross_entropy(scores, target), "contrast": 0.5 * found}

    def _remember(self, seen: _Seen) -> None:
        for label in range(self.num_classes):
            members = seen.query[seen.label == label].to(self.prototypes.dtype)
            left = self.prototype_momentum ** torch.arange(len(members), 0, -1, device=members.device)
            kept = self.prototype_momentum ** len(members)
            weights = (1 - self.prototype_momentum) * left / self.prototype_momentum if len(members) else left
            self.prototypes[label] = F.normalize(kept * self.prototypes[label] + weights @ members, dim=-1)
        fresh = seen.key.to(self.queue.dtype)[: len(self.queue)]
        self.queue.copy_(torch.cat([fresh, self.queue])[: len(self.queue)])
        labels = seen.label[: len(self.queue)]
        self.queue_labels.copy_(torch.cat([labels, self.queue_labels])[: len(self.queue)])


class _Seen(NamedTuple):
    """What a step leaves for `after_step`."""

    query: Tensor
    key: Tensor
    label: Tensor


def contrast(
    query: Float[Tensor, "rows width"],
    names: Int[Tensor, "rows"],
    others: Float[Tensor, "columns width"],
    there: Int[Tensor, "columns"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss: -ln of the share that columns of the same name have in what is like a row, by mean.

    Source: Khosla et al. 2020, arXiv:2004.11362, equation 2.

    Args:
        query: of unit length.
        names: of each row.
        others: of unit length; the first columns are the rows themselves, and are not compared with themselves.
        there: names of the columns; -1 is left out.
        temperature: above 0.

    Example:
        >>> rows = torch.eye(2)
        >>> contrast(rows, torch.tensor([0, 1]), torch.cat([rows, rows]), torch.tensor([-1, -1, 0, 1]), 1.0)
        tensor(0.3133)
    """
    likeness = query @ others.t() / temperature
    left_out = (there < 0)[None].expand(len(query), -1).clone()
    left_out.fill_diagonal_(True)
    shares = likeness.masked_fill(left_out, -torch.inf).log_softmax(dim=-1)
    same = (names[:, None] == there) & ~left_out
    counts = same.sum(dim=-1)
    each = -shares.masked_fill(~same, 0).sum(dim=-1) / counts.clamp(min=1)
    return (each * (counts > 0)).sum() / (counts > 0).sum().clamp(min=1)
