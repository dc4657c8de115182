"""INS: an instance classifier trained on pseudo labels from prototypes.

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

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, labels_of, unbatch

__all__ = ["INS", "contrast"]


class INS(nn.Module):
    """An instance classifier; the prediction of a bag is the mean of its instances' probabilities.

        p_i = softmax(C ReLU(W bag_i + b) + f);  logits = ln(mean over i of p_i);  attention_ci = p_ic / sum_i p_ic

    Class 0 must be the negative class: an instance of a bag of class c is of class 0 or c. In training with labels the
    losses are `instances`, the cross-entropy against the allowed class with the most similar prototype, and `contrast`
    (weight 1/2), a supervised contrastive loss between instances with the same pseudo label, a momentum copy of the
    network and a queue of its earlier embeddings; while `progress` is below `warm_up` the only positive of an instance
    is itself. The bag's loss then has weight 1/2. `after_step()`, to be called after each optimiser step, updates
    prototypes, queue and copy.

    Differs from the authors' code, which trains a ResNet on augmented tiles: features are frozen here, so two views of
    an instance differ in dropout only; the running pseudo label of each training instance is replaced by its initial
    value, uniform over the allowed classes, with the same decreasing weight; the bag's loss is that of the mean
    probability, not of a separate attention head. `regard.heads.plain.ins` is the plain formulation of the prediction.

    Args:
        dim_in: width of the features.
        num_classes: number of classes, at least 2.
        width: width of the projected instances.
        embedding: width of the embeddings that the contrastive loss compares.
        queue: number of earlier embeddings in the queue, at least 1.
        sampled: instances of a bag for the losses, sampled at random, at least 1.
        temperature: temperature of the contrastive loss, above 0.
        momentum: momentum of the copy, 0 to 1.
        prototype_momentum: momentum of the prototypes, 0 to 1.
        warm_up: share of the training, 0 to 1; one epoch of forty in the authors' runs.
        drop_rate: dropout of the projected instances in training, 0 to below 1.

    Raises:
        ValueError: fewer than two classes, or an option out of range; in `forward`, see `regard.heads.contract`.

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
                "at least 2 classes (0 is the negative one), queue and sampled of at least 1, and a temperature above 0"
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
        self.register_buffer("queue_labels", torch.full((queue,), -1))  # -1: empty
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
        """Score the classes; in training with labels (0 to num_classes - 1), compute both losses too."""
        given, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)
        self._seen = []

        def one(instances: Tensor, index: int) -> BagOutput:
            return self._one(instances, None if labels is None else int(labels[index]))

        return unbatch(bag_by_bag(one, bag, valid), given)

    def after_step(self) -> None:
        """Update the momentum copy, the prototypes and the queue."""
        with torch.no_grad():
            own = nn.ModuleList([self.encoder, self.head]).parameters()
            for slow, fast in zip(self.key.parameters(), own, strict=True):
                slow.lerp_(fast.to(slow.dtype), 1 - self.momentum)
            for seen in self._seen:
                self._update_memory(seen)
        self._seen = []

    def _one(self, bag: Float[Tensor, "instances dim"], label: int | None) -> BagOutput:
        bag = bag.to(self.fc.weight.dtype)
        projected = self.encoder(bag)
        scores = self.fc(projected)
        probabilities = scores.float().softmax(dim=-1)
        logits = probabilities.mean(dim=0).clamp(min=torch.finfo(probabilities.dtype).tiny).log().to(scores.dtype)
        attention = (probabilities / probabilities.sum(dim=0)).t()
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
        queue = self.queue.to(query.dtype)
        columns = torch.cat([query, key, queue])
        if self.progress < self.warm_up:
            row_labels = torch.arange(len(query), device=query.device)
            column_labels = torch.cat(
                [torch.full_like(row_labels, -1), row_labels, torch.full_like(self.queue_labels, len(row_labels))]
            )
        else:
            row_labels = pseudo
            column_labels = torch.cat([pseudo, pseudo, self.queue_labels])
        found = contrast(query, row_labels, columns, column_labels, self.temperature)
        return {"instances": F.cross_entropy(scores, target), "contrast": 0.5 * found}

    def _update_memory(self, seen: _Seen) -> None:
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
    """Results of a forward pass for `after_step`."""

    query: Tensor
    key: Tensor
    label: Tensor


def contrast(
    query: Float[Tensor, "rows width"],
    row_labels: Int[Tensor, "rows"],
    columns: Float[Tensor, "columns width"],
    column_labels: Int[Tensor, "columns"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The supervised contrastive loss.

        mean over rows i of -1/|P_i| sum over p in P_i of ln(exp(s_ip) / sum over j != i of exp(s_ij)),
        s_ij = query_i . columns_j / temperature,  P_i the other columns with the label of row i

    Source: Khosla et al. 2020, arXiv:2004.11362, equation 2.

    Args:
        query: rows of unit length.
        row_labels: label of each row.
        columns: vectors of unit length; the first are the rows themselves, which are not compared with themselves.
        column_labels: label of each column; columns with -1 are ignored.
        temperature: above 0.

    Example:
        >>> rows = torch.eye(2)
        >>> contrast(rows, torch.tensor([0, 1]), torch.cat([rows, rows]), torch.tensor([-1, -1, 0, 1]), 1.0)
        tensor(0.3133)
    """
    similarity = query @ columns.t() / temperature
    left_out = (column_labels < 0)[None].expand(len(query), -1).clone()
    left_out.fill_diagonal_(True)
    shares = similarity.masked_fill(left_out, -torch.inf).log_softmax(dim=-1)
    same = (row_labels[:, None] == column_labels) & ~left_out
    counts = same.sum(dim=-1)
    each = -shares.masked_fill(~same, 0).sum(dim=-1) / counts.clamp(min=1)
    return (each * (counts > 0)).sum() / (counts > 0).sum().clamp(min=1)
