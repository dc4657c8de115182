"""What every head takes and gives back: a bag of instances, or a batch of them with a mask.

- `Head(dim_in, num_classes, **own)`; `forward(bag, valid=None, *, labels=None, criterion=...) -> BagOutput`.
- `bag` is one bag (instances, dim) or a padded batch (batch, instances, dim); `valid` (batch, instances) is True where
  an instance is there. One bag gives back an output without the batch axis.
- What a head says of a bag depends on that bag alone: not on the other bags of the batch, nor on the padding. `valid`
  may have gaps.
- `labels` (batch,) are needed only by heads whose own training losses look at them; without labels these are left out.
  `criterion(logits, labels)` is what such terms measure rows of logits with: cross-entropy unless told otherwise.
- A head whose training changes on the way has `progress`, the share of it that is done, 0 to 1, which the trainer sets;
  a head that learns beside the gradient (teachers, queues) has `after_step()`, to be called after each step of the
  optimiser.
- A bag without instances, of another width, or with features that are not numbers is a ValueError that says where.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

__all__ = ["BagOutput", "Criterion", "as_batch", "bag_by_bag", "binary_cross_entropy", "finish", "labels_of"]

#: A loss of rows of logits (rows, classes) and as many labels.
Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class BagOutput:
    """What a head says of a bag, or of each bag of a batch.

    Attributes:
        logits: scores of the classes.
        attention: weights over the instances that sum to one, of every map that the head has (a branch, class or
            head); zero where `valid` was False. None for a head without attention.
        losses: further terms of the training loss, with their weights already applied; mean over the bags.
        features: what the classifier saw, where the head has one vector or some for a bag.
        bag_weight: weight of the bag's own loss beside `losses`.
    """

    logits: Float[Tensor, "*batch classes"]
    attention: Float[Tensor, "*batch maps instances"] | None = None
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    features: Float[Tensor, "..."] | None = None
    bag_weight: float = 1.0

    def heat(self) -> Float[Tensor, "*batch instances"]:
        """One weight for each instance: the mean over the maps, which sums to one too.

        Raises:
            ValueError: the head has no attention.

        Example:
            >>> BagOutput(logits=torch.zeros(2), attention=torch.tensor([[0.2, 0.8], [0.4, 0.6]])).heat()
            tensor([0.3000, 0.7000])
        """
        if self.attention is None:
            raise ValueError("this head has no attention; abmil, clam_sb, dsmil and acmil do")
        return self.attention.mean(dim=-2)

    def loss(self, labels: Shaped[Tensor, "..."], criterion: Criterion = F.cross_entropy) -> Float[Tensor, ""]:
        """The whole training loss: the bag's own, weighted, and the further terms.

        Args:
            labels: of the bag, or of each.
            criterion: as in `forward`.

        Example:
            >>> BagOutput(logits=torch.zeros(1, 2), losses={"branches": torch.tensor(1.0)}).loss(torch.tensor([1]))
            tensor(1.6931)
        """
        single = self.logits.ndim == 1
        own = criterion(self.logits[None] if single else self.logits, labels[None] if single else labels)
        return self.bag_weight * own + sum(self.losses.values())


def binary_cross_entropy(logits: Float[Tensor, "rows classes"], labels: Shaped[Tensor, "rows"]) -> Float[Tensor, ""]:
    """Cross-entropy of each class by itself, the loss of DSMIL; with one class, label 1 says that it is there.

    Example:
        >>> binary_cross_entropy(torch.zeros(3, 1), torch.tensor([0, 1, 1]))
        tensor(0.6931)
    """
    classes = logits.shape[-1]
    wanted = labels[:, None] if classes == 1 else F.one_hot(labels.long(), classes)
    return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype))


def as_batch(
    bag: Float[Tensor, "*batch instances dim"], valid: Bool[Tensor, "*batch instances"] | None, dim_in: int
) -> tuple[Float[Tensor, "bags instances dim"], Bool[Tensor, "bags instances"] | None]:
    """A bag or batch as a batch, checked; padding becomes zeros, and a mask that is True throughout becomes None.

    Raises:
        ValueError: a bag is empty, or its width or mask does not fit.

    Example:
        >>> as_batch(torch.rand(5, 8), None, 8)[0].shape
        torch.Size([1, 5, 8])
    """
    if bag.ndim not in (2, 3):
        raise ValueError(
            f"a bag has shape (instances, dim) or (batch, instances, dim); got {tuple(bag.shape)}. "
            "Flatten the grid of instances first"
        )
    if bag.shape[-1] != dim_in:
        raise ValueError(
            f"the features are {bag.shape[-1]} wide, but this head was built with dim_in={dim_in}; "
            "build it with the width of your encoder"
        )
    if 0 in bag.shape[:-1]:
        raise ValueError(
            f"an empty bag, of shape {tuple(bag.shape)}; a bag needs at least one instance, so leave it out"
        )
    if valid is not None:
        if valid.shape != bag.shape[:-1]:
            raise ValueError(f"valid has shape {tuple(valid.shape)}, but the bag's instances {tuple(bag.shape[:-1])}")
        if bool(valid.all()):
            valid = None
    if bag.ndim == 2:
        bag = bag[None]
        valid = None if valid is None else valid[None]
    if valid is not None:
        empty = (~valid.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(f"bags {empty} of the batch have no valid instance; leave them out")
        bag = bag.masked_fill(~valid[..., None], 0)
    return bag, valid


def labels_of(
    labels: Shaped[Tensor, "..."] | None, bag: Float[Tensor, "*batch instances dim"]
) -> Shaped[Tensor, "bags ..."] | None:
    """Labels with a batch axis, one for each bag.

    Raises:
        ValueError: there are more or fewer labels than bags.

    Example:
        >>> labels_of(torch.tensor(1), torch.rand(5, 8))
        tensor([1])
    """
    if labels is None:
        return None
    labels = labels[None] if bag.ndim == 2 else labels
    bags = bag.shape[0] if bag.ndim == 3 else 1
    if labels.ndim == 0 or labels.shape[0] != bags:
        raise ValueError(f"{bags} bags came with labels of shape {tuple(labels.shape)}; give one label for each bag")
    return labels


def finish(output: BagOutput, asked: Float[Tensor, "*batch instances dim"]) -> BagOutput:
    """An output as it was asked for: without the batch axis if one bag came; its numbers are numbers.

    Raises:
        ValueError: features of the bag are infinite or not numbers.

    Example:
        >>> finish(BagOutput(logits=torch.zeros(1, 2)), torch.rand(5, 8)).logits
        tensor([0., 0.])
    """
    if not torch.compiler.is_compiling() and not bool(output.logits.isfinite().all()):
        _name_what_is_no_number(asked)
    if asked.ndim == 3:
        return output
    attention, features = (None if part is None else part[0] for part in (output.attention, output.features))
    return dataclasses.replace(output, logits=output.logits[0], attention=attention, features=features)


def bag_by_bag(
    one: Callable[[Float[Tensor, "instances dim"], int], BagOutput],
    bag: Float[Tensor, "bags instances dim"],
    valid: Bool[Tensor, "bags instances"] | None,
) -> BagOutput:
    """A batch through a head that takes one bag at a time, without its padding.

    Args:
        one: from the instances of a bag and its place in the batch to its output, without batch axes.
        bag: as `as_batch` gives it.
        valid: likewise.

    Example:
        >>> bag_by_bag(lambda bag, place: BagOutput(logits=bag.mean(dim=0)), torch.ones(2, 5, 3), None).logits
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    outputs = []
    for place in range(len(bag)):
        there = None if valid is None else valid[place]
        output = one(bag[place] if there is None else bag[place][there], place)
        if output.attention is not None and there is not None:
            whole = output.attention.new_zeros(output.attention.shape[0], len(there))
            output = dataclasses.replace(output, attention=whole.index_copy(1, there.nonzero()[:, 0], output.attention))
        outputs.append(output)
    stacked: dict[str, Any] = {}
    for name in ("logits", "attention", "features"):
        parts = [getattr(output, name) for output in outputs]
        stacked[name] = None if parts[0] is None else torch.stack(parts)
    losses = {name: torch.stack([output.losses[name] for output in outputs]).mean() for name in outputs[0].losses}
    return BagOutput(**stacked, losses=losses, bag_weight=outputs[0].bag_weight)


def _name_what_is_no_number(bag: Tensor) -> None:
    wrong = ~torch.isfinite(bag).all(dim=-1)
    if not bool(wrong.any()):
        return  # the weights have gone astray, or half precision has overflowed: the trainer's matter
    places = wrong.nonzero()
    first = places[0].tolist()
    where = f"instance {first[-1]}" + (f" of bag {first[0]}" if len(first) > 1 else "")
    raise ValueError(
        f"{len(places)} instances have features that are infinite or not numbers, the first is {where}; "
        "extract the features of this slide again, in float32 if half precision overflowed"
    )
