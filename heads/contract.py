"""The interface of every head: a bag of instances, or a padded batch of bags with a mask, to logits and attention.

- `Head(dim_in, num_classes, **own)`; `forward(bag, valid=None, *, labels=None, criterion=...) -> BagOutput`.
- `bag` is one bag (instances, dim) or a padded batch (batch, instances, dim); `valid` (batch, instances) is True for
  instances and False for padding, which may be anywhere. The output for a single bag has no batch axis.
- The output for a bag depends on that bag alone: not on the other bags of the batch, and not on the padding.
- `labels` (batch,) are needed only by heads with training losses of their own; without labels those losses are
  omitted. `criterion(logits, labels)` is the loss used for rows of logits in such terms; cross-entropy by default.
- A head whose training follows a schedule has `progress`, the completed share of the training, 0 to 1, which the
  trainer sets. A head that updates a teacher or a queue has `after_step()`, to be called after each optimiser step.
- A bag without instances, with features of another width, or with features that are not finite raises a ValueError.
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

__all__ = ["BagOutput", "Criterion", "as_batch", "bag_by_bag", "binary_cross_entropy", "labels_of", "unbatch"]

#: A loss of rows of logits (rows, classes) and as many labels.
Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class BagOutput:
    """The output of a head for a bag, or for each bag of a batch.

    Attributes:
        logits: scores of the classes, before softmax.
        attention: weights over the instances, which sum to one in each map of the head (a branch, class or attention
            head); zero where `valid` was False. None for a head without attention.
        losses: further terms of the training loss, already multiplied by their weights; means over the bags.
        features: the classifier's input, for heads that pool a bag to one or more vectors.
        bag_weight: weight of the loss of `logits` when `losses` are added to it.
    """

    logits: Float[Tensor, "*batch classes"]
    attention: Float[Tensor, "*batch maps instances"] | None = None
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    features: Float[Tensor, "..."] | None = None
    bag_weight: float = 1.0

    def mean_attention(self) -> Float[Tensor, "*batch instances"]:
        """The mean of the attention over its maps: one weight for each instance, summing to one.

        Raises:
            ValueError: the head has no attention.

        Example:
            >>> BagOutput(logits=torch.zeros(2), attention=torch.tensor([[0.2, 0.8], [0.4, 0.6]])).mean_attention()
            tensor([0.3000, 0.7000])
        """
        if self.attention is None:
            raise ValueError("this head has no attention; abmil, clam_sb, dsmil and acmil have")
        return self.attention.mean(dim=-2)

    def loss(self, labels: Shaped[Tensor, "..."], criterion: Criterion = F.cross_entropy) -> Float[Tensor, ""]:
        """The training loss: bag_weight * criterion(logits, labels) + the sum of `losses`.

        Args:
            labels: the label of the bag, or of each bag of the batch.
            criterion: a loss of rows of logits and labels, as given to `forward`.

        Example:
            >>> BagOutput(logits=torch.zeros(1, 2), losses={"branches": torch.tensor(1.0)}).loss(torch.tensor([1]))
            tensor(1.6931)
        """
        single = self.logits.ndim == 1
        bag_loss = criterion(self.logits[None] if single else self.logits, labels[None] if single else labels)
        return self.bag_weight * bag_loss + sum(self.losses.values())


def binary_cross_entropy(logits: Float[Tensor, "rows classes"], labels: Shaped[Tensor, "rows"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of each class on its own, the loss of DSMIL; with one class, label 1 means present.

    Example:
        >>> binary_cross_entropy(torch.zeros(3, 1), torch.tensor([0, 1, 1]))
        tensor(0.6931)
    """
    classes = logits.shape[-1]
    targets = labels[:, None] if classes == 1 else F.one_hot(labels.long(), classes)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def as_batch(
    bag: Float[Tensor, "*batch instances dim"], valid: Bool[Tensor, "*batch instances"] | None, dim_in: int
) -> tuple[Float[Tensor, "bags instances dim"], Bool[Tensor, "bags instances"] | None]:
    """Check a bag or batch and give it a batch axis; padding is set to zero, and a mask without padding becomes None.

    Raises:
        ValueError: a bag is empty, its features have another width, or the shape of the mask differs.

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
            f"the features have width {bag.shape[-1]}, but this head was built with dim_in={dim_in}; "
            "use the width of your encoder's features"
        )
    if 0 in bag.shape[:-1]:
        raise ValueError(
            f"an empty bag of shape {tuple(bag.shape)}; a bag needs at least one instance, so leave it out"
        )
    if valid is not None:
        if valid.shape != bag.shape[:-1]:
            raise ValueError(
                f"valid has shape {tuple(valid.shape)}, but the instances have shape {tuple(bag.shape[:-1])}"
            )
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
    """Give labels a batch axis and check that there is one for each bag.

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
        raise ValueError(f"{bags} bags with labels of shape {tuple(labels.shape)}; give one label for each bag")
    return labels


def unbatch(output: BagOutput, given: Float[Tensor, "*batch instances dim"]) -> BagOutput:
    """Remove the batch axis if a single bag was given, and check that the logits are finite.

    Raises:
        ValueError: the bag has features that are infinite or NaN.

    Example:
        >>> unbatch(BagOutput(logits=torch.zeros(1, 2)), torch.rand(5, 8)).logits
        tensor([0., 0.])
    """
    if not torch.compiler.is_compiling() and not bool(output.logits.isfinite().all()):
        _refuse_non_finite(given)
    if given.ndim == 3:
        return output
    attention, features = (None if part is None else part[0] for part in (output.attention, output.features))
    return dataclasses.replace(output, logits=output.logits[0], attention=attention, features=features)


def bag_by_bag(
    one: Callable[[Float[Tensor, "instances dim"], int], BagOutput],
    bag: Float[Tensor, "bags instances dim"],
    valid: Bool[Tensor, "bags instances"] | None,
) -> BagOutput:
    """Run a function on each bag of a batch without its padding, and stack the outputs.

    Args:
        one: from the instances of a bag and its index in the batch to its output, without a batch axis.
        bag: the batch, as `as_batch` returns it.
        valid: its mask, likewise.

    Example:
        >>> bag_by_bag(lambda bag, index: BagOutput(logits=bag.mean(dim=0)), torch.ones(2, 5, 3), None).logits
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    outputs = []
    for index in range(len(bag)):
        present = None if valid is None else valid[index]
        output = one(bag[index] if present is None else bag[index][present], index)
        if output.attention is not None and present is not None:
            whole = output.attention.new_zeros(output.attention.shape[0], len(present))
            whole = whole.index_copy(1, present.nonzero()[:, 0], output.attention)
            output = dataclasses.replace(output, attention=whole)
        outputs.append(output)
    stacked: dict[str, Any] = {}
    for name in ("logits", "attention", "features"):
        parts = [getattr(output, name) for output in outputs]
        stacked[name] = None if parts[0] is None else torch.stack(parts)
    losses = {name: torch.stack([output.losses[name] for output in outputs]).mean() for name in outputs[0].losses}
    return BagOutput(**stacked, losses=losses, bag_weight=outputs[0].bag_weight)


def _refuse_non_finite(bag: Tensor) -> None:
    wrong = ~torch.isfinite(bag).all(dim=-1)
    if not bool(wrong.any()):
        return  # the weights diverged or half precision overflowed, which the trainer handles
    indices = wrong.nonzero()
    first = indices[0].tolist()
    where = f"instance {first[-1]}" + (f" of bag {first[0]}" if len(first) > 1 else "")
    raise ValueError(
        f"{len(indices)} instances have features that are infinite or NaN, the first is {where}; "
        "extract the features of this slide again, in float32 if half precision overflowed"
    )
