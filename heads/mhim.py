"""MHIM: a teacher masks easy instances, and the student is trained on the harder ones.

Papers: Tang et al. 2023, ICCV, arXiv:2307.15254 (version 1), and 2025, IJCV, arXiv:2509.11526 (version 2); code
DearCaat/MHIM-MIL branch v1 and @9d0c91a.
"""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, unbatch
from .mhim_masking import Masks
from .mhim_merge import Merge
from .mhim_network import Baseline, Encoded, Network

__all__ = ["MHIM", "VERSION_1", "soft_cross_entropy"]

#: Options of version 1, as in the authors' training of attention pooling on CAMELYON16:
#: `build_head("mhim", 1024, **VERSION_1)`.
VERSION_1: dict[str, Any] = {
    "activation": "relu",
    "mask_random": 0.5,
    "mask_high": 0.01,
    "merge_tokens": 0,
    "by_class": False,
    "consistency": 0.1,
    "momentum": 0.9999,
}


class MHIM(nn.Module):
    """Masked instance mining with a momentum teacher; both networks have the same architecture.

    In training the student gets the instances that the teacher's masks keep, outside training the whole bag. With
    `baseline="attn"`:

        h_i = activation(W bag_i + b);  a = softmax over i of w . attention_activation(V h_i);  z = sum_i a_i h_i
        logits = C z_student + f
        `consistency`: -consistency * sum over channels of softmax(z_teacher / temperature) ln softmax(z_student)

    The teacher has no gradient; `after_step()`, to be called after each optimiser step, moves its weights towards the
    student's. In training `attention` covers the instances that the student saw. Differs from the authors' code: if the
    masks would hide a whole bag nothing is hidden; the global queries are updated after the optimiser step, not during
    it. Their recipe initialises both networks from a trained baseline: load its weights with `load_head`.
    `regard.heads.plain.mhim` is the plain formulation of version 1.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances.
        baseline: `"attn"` (attention pooling), `"selfattn"` (TransMIL's transformer) or `"dsmil"`.
        activation: activation of the projection: relu, gelu or tanh.
        attention_activation: activation of attention pooling, likewise.
        drop_rate: dropout of the projected instances in training, of the teacher too, 0 to below 1.
        mask_random: share of the instances masked at random, 0 to 1; version 1.
        mask_low: share masked from the lowest scores, 0 to 1; version 1.
        mask_high: share masked from the highest scores, 0 to 1.
        mask_high_share: share of the highest instances that is masked; the masked ones are drawn from the
            mask_high / mask_high_share highest.
        mask_schedule: `"cosine"` decreases `mask_high` to 0 with `progress`.
        merge_tokens: tokens into which sampled instances are merged; 0 merges none, as in version 1.
        merge_keep: share of the instances that are not merged, 0 to 1.
        merge_momentum: momentum of the global queries, 0 to 1.
        merge_test: whether merged tokens are added outside training, and for the teacher, too.
        by_class: whether masks use class activation instead of attention; version 2.
        consistency: weight of the consistency loss.
        temperature: temperature of the teacher's distribution, above 0.
        momentum: momentum of the teacher, 0 to 1.
        momentum_schedule: `"cosine"` increases it to 1 with `progress`.

    Raises:
        ValueError: an option is out of range; in `forward`, see `regard.heads.contract`.

    Example:
        >>> head = MHIM(384, 2, width=64)
        >>> output = head(torch.rand(50, 384), labels=torch.tensor(1))
        >>> sorted(output.losses), output.attention.shape
        (['consistency'], torch.Size([1, 50]))
        >>> head.after_step()
    """

    paper: ClassVar[str] = "arXiv:2509.11526"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        baseline: Baseline = "attn",
        activation: str = "gelu",
        attention_activation: str = "relu",
        drop_rate: float = 0.25,
        mask_random: float = 0.0,
        mask_low: float = 0.0,
        mask_high: float = 0.03,
        mask_high_share: float = 0.5,
        mask_schedule: Literal["constant", "cosine"] = "constant",
        merge_tokens: int = 5,
        merge_keep: float = 0.8,
        merge_momentum: float = 0.9999,
        merge_test: bool = False,
        by_class: bool = True,
        consistency: float = 0.5,
        temperature: float = 0.1,
        momentum: float = 0.9997,
        momentum_schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__()
        _check_schedules(mask_schedule, momentum_schedule)
        if not (temperature > 0 and 0 <= momentum <= 1 and 0 <= merge_keep <= 1 and merge_tokens >= 0):
            raise ValueError(
                f"temperature is {temperature}, momentum {momentum}, merge_keep {merge_keep} and merge_tokens "
                f"{merge_tokens}; give a temperature above 0, shares from 0 to 1 and a count of 0 or more"
            )
        self.dim_in, self.num_classes = dim_in, num_classes
        self.masks = Masks(random=mask_random, low=mask_low, high=mask_high, high_share=mask_high_share)
        self.mask_schedule, self.momentum_schedule = mask_schedule, momentum_schedule
        self.merge_test, self.by_class = merge_test, by_class
        self.consistency, self.temperature, self.momentum = consistency, temperature, momentum
        self.progress = 0.0
        self.student = Network(
            dim_in,
            num_classes,
            width=width,
            baseline=baseline,
            activation=activation,
            attention_activation=attention_activation,
            drop_rate=drop_rate,
            merge=Merge(width, tokens=merge_tokens, keep=merge_keep, momentum=merge_momentum) if merge_tokens else None,
        )
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes by the student; in training, compute the loss `consistency`. `labels` are ignored."""
        given = bag
        bag, valid = as_batch(bag, valid, self.dim_in)
        return unbatch(bag_by_bag(self._train_one if self.training else self._predict_one, bag, valid), given)

    @torch.no_grad()
    def teach(self, bag: Float[Tensor, "instances dim"]) -> tuple[Encoded, Float[Tensor, "maps instances"]]:
        """The teacher's encoding of a bag, and the scores that masks use."""
        teacher = self.teacher
        instances = teacher.project(bag)
        count = len(instances)
        if self.merge_test and teacher.merge is not None:
            teacher.merge.eval()  # all are kept, and all are merged too
            instances, _ = teacher.merge(instances)
        found = teacher.classify(instances)
        return found, teacher.scores(instances, found, self.by_class)[:, :count]

    def after_step(self) -> None:
        """Update the global queries and the teacher."""
        if self.student.merge is not None:
            self.student.merge.after_step()
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.lerp_(fast.to(slow.dtype), 1 - self.momentum_now())

    def momentum_now(self) -> float:
        """The teacher's momentum at this `progress`."""
        if self.momentum_schedule == "constant":
            return self.momentum
        return 1 - (1 - self.momentum) * _cosine(self.progress)

    def _train_one(self, bag: Float[Tensor, "instances dim"], index: int) -> BagOutput:
        target, scores = self.teach(bag)
        high = self.masks.high * (1 if self.mask_schedule == "constant" else _cosine(self.progress))
        kept = self.masks.kept(scores, high)
        instances = self.student.project(bag)[kept]
        if self.student.merge is not None:
            instances, unmerged = self.student.merge(instances)
            kept = kept[unmerged]
        found = self.student.classify(instances)
        loss = soft_cross_entropy(found.features, target.features, self.temperature)
        return _output(found, kept, len(bag), {"consistency": self.consistency * loss})

    def _predict_one(self, bag: Float[Tensor, "instances dim"], index: int) -> BagOutput:
        instances = self.student.project(bag)
        unmerged = torch.arange(len(bag), device=bag.device)
        if self.merge_test and self.student.merge is not None:
            instances, unmerged = self.student.merge(instances)
        return _output(self.student.classify(instances), unmerged, len(bag), {})


def soft_cross_entropy(
    own: Float[Tensor, "*rows channels"], target: Float[Tensor, "*rows channels"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy between two vectors as distributions over their channels; mean over rows.

        -sum over channels of softmax(target / temperature) ln softmax(own)

    Args:
        own: vectors of the student.
        target: vectors of the teacher.
        temperature: above 0; below 1 it sharpens the target.

    Example:
        >>> soft_cross_entropy(torch.zeros(1, 4), torch.rand(1, 4), 0.1)
        tensor(1.3863)
    """
    return -((target / temperature).softmax(dim=-1) * own.log_softmax(dim=-1)).sum(dim=-1).mean()


def _output(found: Encoded, indices: Tensor, count: int, losses: dict[str, Tensor]) -> BagOutput:
    """An output whose attention covers all instances; merged tokens are excluded."""
    assert found.logits is not None
    seen = found.attention[:, : len(indices)]
    seen = seen / seen.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
    attention = seen.new_zeros(len(seen), count).index_copy(1, indices, seen)
    return BagOutput(logits=found.logits, attention=attention, losses=losses, features=found.features)


def _cosine(progress: float) -> float:
    """A cosine schedule from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def _check_schedules(*schedules: str) -> None:
    for schedule in schedules:
        if schedule not in ("constant", "cosine"):
            raise ValueError(f"a schedule of MHIM is {schedule!r}; give constant or cosine")
