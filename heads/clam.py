"""CLAM: attention pooling, and classifiers of the instances with the highest and lowest attention.

Paper: Lu et al. 2021, "Data-efficient and weakly supervised computational pathology on whole-slide images", Nature
Biomedical Engineering, arXiv:2004.09666; code mahmoodlab/CLAM@53e2409 models/model_clam.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .attention_pool import Pooled, Scorer, attention_pool, check_chunk
from .contract import BagOutput, Criterion, as_batch, labels_of, unbatch

__all__ = ["ClamMB", "ClamSB", "smooth_top1_svm"]

#: A loss of the two logits of each instance (instances, 2) and the targets, 0 or 1.
InstanceLoss = Callable[[Tensor, Tensor], Tensor]


def smooth_top1_svm(
    logits: Float[Tensor, "instances 2"],
    targets: Int[Tensor, "instances"],
    *,
    margin: float = 1.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """The smooth top-1 hinge loss, which CLAM's recipes use for instances.

        mean over instances of temperature * ln sum over c of exp((s_c + margin [c != t] - s_t) / temperature)

    for the logits s and the target t of an instance; a smooth maximum in the multi-class hinge loss. Source: Berrada et
    al. 2018, "Smooth Loss Functions for Deep Top-k Classification", arXiv:1802.07595, equation 4 for k = 1.

    Example:
        >>> smooth_top1_svm(torch.zeros(1, 2), torch.tensor([1]))
        tensor(1.3133)
    """
    wrong = 1 - F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    over = logits + margin * wrong - logits.gather(-1, targets[:, None])
    return (temperature * torch.logsumexp(over / temperature, dim=-1)).mean()


class ClamSB(nn.Module):
    """CLAM with a single attention branch and an instance classifier I_c for each class c.

        h_i = ReLU(W bag_i + b);  a = softmax over i of the gated scores (see `regard.heads.attention_pool`)
        logits = C sum_i a_i h_i + f
        `instance`: `instance_loss` of I_label(h_i) for the `samples` highest (target 1) and lowest (0) scores; with
        `subtyping` also of I_c for the `samples` highest of every other class (target 0), over the number of classes
        loss = bag_weight * CE(logits, label) + (1 - bag_weight) * instance

    Differs from the authors' code: for a bag with fewer than `samples` instances all are used, where theirs raises; the
    sampled instances have a separate dropout mask; sampling uses the scores before softmax, which have the same order.
    `regard.heads.plain.clam` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the projected instances.
        hidden: width of the scoring layers: 256 (the authors' "small") or 384 ("big").
        gated: whether the scores have the sigmoid gate.
        drop_rate: dropout of projected instances and of the scoring layers in training, 0 to below 1.
        samples: highest and lowest instances for the instance loss, each; 0 turns it off.
        subtyping: whether classes exclude each other, so that the highest instances of every other class are
            negative examples of it.
        instance_loss: `"ce"`, the default of the authors' code, or `"svm"`, that of their recipes (see
            `smooth_top1_svm`).
        bag_weight: weight of the bag's loss, 0 to 1.
        chunk: instances of a block, for bags whose projection does not fit into memory; see `attention_pool`.

    Raises:
        ValueError: an option or label is out of range; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = ClamSB(384, 2).eval()(torch.rand(50, 384), labels=torch.tensor(1))
        >>> output.attention.shape, sorted(output.losses), output.bag_weight
        (torch.Size([1, 50]), ['instance'], 0.7)
    """

    paper: ClassVar[str] = "arXiv:2004.09666"
    one_map_per_class: ClassVar[bool] = False

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 512,
        hidden: int = 256,
        gated: bool = True,
        drop_rate: float = 0.25,
        samples: int = 8,
        subtyping: bool = False,
        instance_loss: Literal["ce", "svm"] = "ce",
        bag_weight: float = 0.7,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if samples < 0 or not 0 <= bag_weight <= 1 or instance_loss not in ("ce", "svm"):
            raise ValueError(
                f"samples is {samples}, bag_weight {bag_weight} and instance_loss {instance_loss!r}; give "
                "samples of 0 or more (8), a bag_weight from 0 to 1 (0.7), and ce or svm"
            )
        self.dim_in, self.num_classes = dim_in, num_classes
        self.drop_rate, self.samples, self.subtyping = drop_rate, samples, subtyping
        self.instance_loss: InstanceLoss = smooth_top1_svm if instance_loss == "svm" else F.cross_entropy
        self.bag_weight, self.chunk = bag_weight, check_chunk(chunk)
        attention = _Attention(width, hidden, num_classes if self.one_map_per_class else 1, gated, drop_rate)
        self.attention_net = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), nn.Dropout(drop_rate), attention)
        self.classifiers: nn.Linear | nn.ModuleList = nn.Linear(width, num_classes)
        if self.one_map_per_class:
            self.classifiers = nn.ModuleList(nn.Linear(width, 1) for _ in range(num_classes))
        self.instance_classifiers = nn.ModuleList(nn.Linear(width, 2) for _ in range(num_classes))
        self.instance_classifiers.requires_grad_(samples > 0)

    def pool(self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None) -> Pooled:
        """The pooled vector of each map, and the scores before softmax."""
        projection, attention = self.attention_net[0], self.attention_net[-1]
        assert isinstance(projection, nn.Linear)
        assert isinstance(attention, _Attention)
        rate = self.drop_rate if self.training else 0.0
        return attention_pool(
            bag,
            valid,
            projection,
            attention.scorer,
            drop_rate=rate,
            score_drop_rate=rate,
            chunk=self.chunk,
        )

    def classify(self, features: Float[Tensor, "bags maps width"]) -> Float[Tensor, "bags classes"]:
        """Logits from the vectors of the maps."""
        if isinstance(self.classifiers, nn.Linear):
            return self.classifiers(features[:, 0])
        return torch.cat([layer(features[:, index]) for index, layer in enumerate(self.classifiers)], dim=1)

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Int[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes; with labels, compute the loss `instance` too.

        Args:
            bag: one bag, or a padded batch.
            valid: True for instances, False for padding.
            labels: the classes, 0 to num_classes - 1.
            criterion: ignored; the instance loss is chosen by `instance_loss`.
        """
        given, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)
        features, scores = self.pool(bag, valid)
        losses = {}
        if labels is not None and self.samples:
            found = [self._instances(bag[i], scores[i], label) for i, label in enumerate(labels.tolist())]
            losses["instance"] = (1 - self.bag_weight) * torch.stack(found).mean()
        output = BagOutput(
            logits=self.classify(features),
            attention=scores.softmax(dim=-1),
            losses=losses,
            features=features[:, 0] if features.shape[1] == 1 else features,
            bag_weight=self.bag_weight if losses else 1.0,
        )
        return unbatch(output, given)

    def _instances(
        self, bag: Float[Tensor, "instances dim"], scores: Float[Tensor, "maps instances"], label: int
    ) -> Float[Tensor, ""]:
        if not 0 <= label < self.num_classes:
            raise ValueError(f"a bag has label {label}, but there are {self.num_classes} classes, counted from 0")
        total = scores.new_zeros(())
        for index, classifier in enumerate(self.instance_classifiers):
            found = self.sample(scores[index if len(scores) > 1 else 0], index == label)
            if found is not None:
                which, targets = found
                total = total + self.instance_loss(classifier(self._project(bag[which])), targets)
            elif self.training:
                total = total + 0 * sum(weight.sum() for weight in classifier.parameters())  # for data parallelism
        return total / self.num_classes if self.subtyping else total

    def sample(
        self, scores: Float[Tensor, "instances"], is_label: bool
    ) -> tuple[Int[Tensor, "sampled"], Int[Tensor, "sampled"]] | None:
        """Indices of the instances that train the classifier of a class, and their targets; None if it is not trained.

        Args:
            scores: the scores of the class's map, -inf for padding.
            is_label: whether the class is the label of the bag.
        """
        if not is_label and not self.subtyping:
            return None
        count = min(self.samples, int(scores.isfinite().sum()))
        high = scores.topk(count).indices
        if not is_label:
            return high, torch.zeros_like(high)
        low = scores.masked_fill(~scores.isfinite(), torch.inf).topk(count, largest=False).indices
        return torch.cat([high, low]), torch.cat([torch.ones_like(high), torch.zeros_like(low)])

    def _project(self, instances: Float[Tensor, "sampled dim"]) -> Float[Tensor, "sampled width"]:
        projection = self.attention_net[0]
        assert isinstance(projection, nn.Linear)
        hidden = projection(instances.to(projection.weight.dtype)).relu()
        return F.dropout(hidden, self.drop_rate, self.training)


class ClamMB(ClamSB):
    """CLAM with an attention branch for each class: logits_c = C_c sum_i a_ci h_i + f_c.

    Options, losses and differences from the authors' code are those of `ClamSB`.

    Example:
        >>> ClamMB(384, 3).eval()(torch.rand(50, 384)).attention.shape
        torch.Size([3, 50])
    """

    one_map_per_class: ClassVar[bool] = True


class _Attention(nn.Module):
    """The scoring layers, with the authors' names for the gated and the plain kind."""

    def __init__(self, width: int, hidden: int, maps: int, gated: bool, drop_rate: float) -> None:
        super().__init__()
        drop = nn.Dropout(drop_rate)
        if gated:
            self.attention_a = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), drop)
            self.attention_b = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid(), drop)
            self.attention_c = nn.Linear(hidden, maps)
        else:
            self.module = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), drop, nn.Linear(hidden, maps))
        self.gated = gated

    @property
    def scorer(self) -> Scorer:
        """The linear layers, for `attention_pool`."""
        value, gate, score = (
            (self.attention_a[0], self.attention_b[0], self.attention_c)
            if self.gated
            else (self.module[0], None, self.module[-1])
        )
        assert isinstance(value, nn.Linear)
        assert isinstance(score, nn.Linear)
        assert gate is None or isinstance(gate, nn.Linear)
        return Scorer(value, gate, score)
