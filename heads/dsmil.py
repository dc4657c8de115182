"""DSMIL: one stream finds the critical instance of each class, the other pools the bag by likeness to it.

Paper: Li, Li, Eliceiri 2021, "Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification with
Self-supervised Contrastive Learning", CVPR 2021, arXiv:2011.08939; code binli123/dsmil-wsi@80465ed dsmil.py.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .attention_pool import check_chunk
from .blocks import in_blocks
from .contract import BagOutput, Criterion, as_batch, finish, labels_of
from .layers import instance_softmax, weighted_mean

__all__ = ["DSMIL", "DualStream", "Streams"]


class Streams(NamedTuple):
    """What both streams give.

    Attributes:
        bag_logits: of the second stream.
        max_logits: of the critical instances.
        instance_logits: of each instance, without gradient; padding is -inf.
        scores: likeness to the critical instances before softmax.
        attention: after it.
        features: the pooled bag, one vector for each class.
    """

    bag_logits: Float[Tensor, "bags classes"]
    max_logits: Float[Tensor, "bags classes"]
    instance_logits: Float[Tensor, "bags instances classes"]
    scores: Float[Tensor, "bags classes instances"]
    attention: Float[Tensor, "bags classes instances"]
    features: Float[Tensor, "bags classes dim"]


class DSMIL(nn.Module):
    """Logits of the bag's stream, whose loss has weight 1/2; the loss `max` of the critical instances has the other.

    The authors' loss is `binary_cross_entropy` (of `regard.heads.contract`), for which 1 class is enough; AEM's is
    cross-entropy. At test they take the bag's stream or the mean of both streams' probabilities: `streams` gives both.

    Args:
        dim_in: width of the features.
        num_classes: classes of the bag.
        hidden: width in which instances are compared; AEM's code takes another than the 128 of the authors.
        nonlinear: whether two layers with ReLU and tanh are compared, the authors' later default, or one linear layer
            as in the paper and in AEM's code, which is also much faster here.
        values: whether what is pooled is a layer of the instances, or the instances themselves.
        drop_rate: dropout before that layer in training, 0 to below 1.
        chunk: instances at a time, where what is kept for a bag's gradient does not fit into memory.

    Raises:
        ValueError: `chunk` is below 1; in `forward`, as the contract says.

    Example:
        >>> output = DSMIL(384, 2)(torch.rand(50, 384), labels=torch.tensor(1))
        >>> output.attention.shape, sorted(output.losses)
        (torch.Size([2, 50]), ['max'])
    """

    paper: ClassVar[str] = "arXiv:2011.08939"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        hidden: int = 128,
        nonlinear: bool = False,
        values: bool = False,
        drop_rate: float = 0.0,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.dim_in, self.num_classes = dim_in, num_classes
        self.i_classifier = nn.Module()
        self.i_classifier.fc = nn.Sequential(nn.Linear(dim_in, num_classes))
        self.b_classifier = DualStream(
            dim_in,
            num_classes,
            hidden=hidden,
            nonlinear=nonlinear,
            values=values,
            drop_rate=drop_rate,
            chunk=check_chunk(chunk),
        )

    def streams(
        self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None
    ) -> Streams:
        """Both streams; arguments as `as_batch` gives them."""
        first = self.i_classifier.fc[0]  # type: ignore[index]
        assert isinstance(first, nn.Linear)
        return self.b_classifier(bag, valid, first)

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes by the bag's stream; with labels, give the loss `max` too."""
        asked, labels = bag, labels_of(labels, bag)
        bag, valid = as_batch(bag, valid, self.dim_in)
        found = self.streams(bag, valid)
        losses = {} if labels is None else {"max": 0.5 * criterion(found.max_logits, labels)}
        output = BagOutput(
            logits=found.bag_logits,
            attention=found.attention,
            losses=losses,
            features=found.features,
            bag_weight=0.5 if losses else 1.0,
        )
        return finish(output, asked)


class DualStream(nn.Module):
    """The second stream, given the linear layer that is the first; with the authors' names.

    The first stream's gradient goes to the critical instances alone, so that only they are scored with one. A linear
    query needs no queries of the instances: (q_i . q_m) is x_i . (W^T q_m) and a constant.

    Args:
        dim_in: width of an instance.
        num_classes: classes of the bag.
        hidden: as in `DSMIL`.
        nonlinear: likewise.
        values: likewise.
        drop_rate: likewise.
        chunk: likewise.

    Example:
        >>> DualStream(8, 2)(torch.rand(1, 5, 8), None, nn.Linear(8, 2)).features.shape
        torch.Size([1, 2, 8])
    """

    def __init__(
        self,
        dim_in: int,
        num_classes: int,
        *,
        hidden: int = 128,
        nonlinear: bool = False,
        values: bool = False,
        drop_rate: float = 0.0,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.q: nn.Sequential | nn.Linear = nn.Linear(dim_in, hidden)
        if nonlinear:
            self.q = nn.Sequential(self.q, nn.ReLU(inplace=True), nn.Linear(hidden, hidden), nn.Tanh())
        self.v: nn.Sequential | None = None
        if values:
            self.v = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(dim_in, dim_in), nn.ReLU(inplace=True))
        self.fcc = nn.Conv1d(num_classes, num_classes, dim_in)

    def forward(
        self,
        bag: Float[Tensor, "bags instances dim"],
        valid: Bool[Tensor, "bags instances"] | None,
        first: nn.Linear,
    ) -> Streams:
        """Pool each bag by likeness to its critical instances."""
        dtype = first.weight.dtype
        rows = max(1, 512 * torch.get_num_threads() // len(bag)) if bag.device.type == "cpu" else None
        with torch.no_grad():
            each = torch.cat([scores for _, scores in in_blocks(first, bag, dtype, rows=self.chunk)], dim=1)
            if valid is not None:
                each = each.masked_fill(~valid[..., None], -torch.inf)
            places = each.argmax(dim=1)  # bags classes
        critical = bag[torch.arange(len(bag), device=bag.device)[:, None], places].to(dtype)  # bags classes dim
        max_logits = (critical * first.weight).sum(dim=-1) + first.bias
        asked = self.q(critical)  # bags classes hidden
        scale = asked.shape[-1] ** -0.5
        if isinstance(self.q, nn.Linear):
            towards = asked @ self.q.weight  # bags classes dim
            constant = (asked @ self.q.bias)[:, None]

            def likeness(block: Tensor) -> Tensor:
                return (block @ towards.transpose(1, 2) + constant) * scale
        else:

            def likeness(block: Tensor) -> Tensor:
                return self.q(block) @ asked.transpose(1, 2) * scale

        found = [scores for _, scores in in_blocks(likeness, bag, dtype, chunk=self.chunk, rows=rows)]
        scores = torch.cat(found, dim=1).transpose(1, 2)  # bags classes instances
        attention = instance_softmax(scores, valid)

        def read(block: Tensor, weights: Tensor) -> Tensor:
            value = block if self.v is None else self.v(block)
            return weighted_mean(weights, value)

        features = torch.zeros((), dtype=dtype, device=bag.device)
        for _, part in in_blocks(read, bag, dtype, chunk=self.chunk, rows=rows, beside=attention):
            features = features + part
        bag_logits = self.fcc(features)[..., 0]
        return Streams(bag_logits, max_logits, each, scores, attention, features)
