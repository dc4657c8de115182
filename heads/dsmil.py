"""DSMIL: one stream finds the critical instance of each class, the other pools the bag by similarity to it.

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
from .contract import BagOutput, Criterion, as_batch, labels_of, unbatch
from .layers import instance_softmax, weighted_mean

__all__ = ["DSMIL", "DualStream", "Streams"]


class Streams(NamedTuple):
    """The results of both streams.

    Attributes:
        bag_logits: logits of the second stream.
        max_logits: logits of the critical instances.
        instance_logits: logits of each instance, without gradient; -inf for padding.
        scores: similarity to the critical instances, before softmax.
        attention: the softmax of `scores`.
        features: the pooled bag, one vector for each class.
    """

    bag_logits: Float[Tensor, "bags classes"]
    max_logits: Float[Tensor, "bags classes"]
    instance_logits: Float[Tensor, "bags instances classes"]
    scores: Float[Tensor, "bags classes instances"]
    attention: Float[Tensor, "bags classes instances"]
    features: Float[Tensor, "bags classes dim"]


class DSMIL(nn.Module):
    """Max pooling of instance scores to find critical instances, and attention by similarity to them.

        s_ic = W_c bag_i + b_c;  m_c = argmax over i of s_ic
        a_c = softmax over i of q(bag_i) . q(bag_(m_c)) / sqrt(hidden);  z_c = sum_i a_ci v(bag_i)
        logits_d = sum over c of F_dc . z_c + f_d
        loss = criterion(logits, label) / 2 + `max`,  `max` = criterion(max over i of s_i, label) / 2

    The authors' criterion is `regard.heads.contract.binary_cross_entropy`, for which `num_classes` may be 1; AEM's is
    cross-entropy. For testing they use `logits`, or the mean of the probabilities of both streams, which `streams`
    returns. `regard.heads.plain.dsmil` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        hidden: width of the queries q; 128 in the authors' code.
        nonlinear: whether q has two layers with ReLU and tanh, the authors' later default, or is linear as in the
            paper and in AEM's code, which is also much faster here.
        values: whether v is a layer with ReLU; otherwise the instances themselves are pooled.
        drop_rate: dropout before v in training, 0 to below 1.
        chunk: instances of a block, for bags whose activations do not fit into memory; they are then recomputed in
            the backward pass.

    Raises:
        ValueError: `chunk` is below 1; in `forward`, see `regard.heads.contract`.

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
        """The results of both streams; arguments as `as_batch` returns them."""
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
        """Score the classes by the second stream; with labels, compute the loss `max` too."""
        given, labels = bag, labels_of(labels, bag)
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
        return unbatch(output, given)


class DualStream(nn.Module):
    """The second stream, which is given the linear layer of the first; with the authors' parameter names.

    The gradient of the first stream reaches only the critical instances, so only their scores are computed with
    gradients. A linear q needs no queries of the instances: q(x_i) . q(x_m) = x_i . (W^T q(x_m)) + constant.

    Args:
        dim_in: width of an instance.
        num_classes: classes of the bag.
        hidden: as in `DSMIL`, as are all that follow.
        nonlinear: see there.
        values: see there.
        drop_rate: see there.
        chunk: see there.

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
        """Pool each bag by similarity to its critical instances."""
        dtype = first.weight.dtype
        rows = max(1, 512 * torch.get_num_threads() // len(bag)) if bag.device.type == "cpu" else None
        with torch.no_grad():
            each = torch.cat([scores for _, scores in in_blocks(first, bag, dtype, rows=self.chunk)], dim=1)
            if valid is not None:
                each = each.masked_fill(~valid[..., None], -torch.inf)
            indices = each.argmax(dim=1)  # bags classes
        critical = bag[torch.arange(len(bag), device=bag.device)[:, None], indices].to(dtype)  # bags classes dim
        max_logits = (critical * first.weight).sum(dim=-1) + first.bias
        critical_queries = self.q(critical)  # bags classes hidden
        scale = critical_queries.shape[-1] ** -0.5
        if isinstance(self.q, nn.Linear):
            directions = critical_queries @ self.q.weight  # bags classes dim
            constant = (critical_queries @ self.q.bias)[:, None]

            def similarity(block: Tensor) -> Tensor:
                return (block @ directions.transpose(1, 2) + constant) * scale
        else:

            def similarity(block: Tensor) -> Tensor:
                return self.q(block) @ critical_queries.transpose(1, 2) * scale

        found = [scores for _, scores in in_blocks(similarity, bag, dtype, chunk=self.chunk, rows=rows)]
        scores = torch.cat(found, dim=1).transpose(1, 2)  # bags classes instances
        attention = instance_softmax(scores, valid)

        def read(block: Tensor, weights: Tensor) -> Tensor:
            value = block if self.v is None else self.v(block)
            return weighted_mean(weights, value)

        features = torch.zeros((), dtype=dtype, device=bag.device)
        for _, part in in_blocks(read, bag, dtype, chunk=self.chunk, rows=rows, maps=attention):
            features = features + part
        bag_logits = self.fcc(features)[..., 0]
        return Streams(bag_logits, max_logits, each, scores, attention, features)
