"""IBMIL: attention pooling that is adjusted for confounders shared by many bags.

Paper: Lin et al. 2023, "Interventional Bag Multi-Instance Learning On Whole-Slide Pathological Images", CVPR 2023,
arXiv:2303.06873; as in dazhangyu123/ACMIL@e53d19c architecture/ibmil.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .attention_pool import Pooled, attention_pool, check_chunk
from .contract import BagOutput, Criterion, as_batch, unbatch
from .layers import DimReduction, GatedAttention

__all__ = ["IBMIL", "confounders_of"]


class IBMIL(nn.Module):
    """ABMIL whose pooled vector also attends to a dictionary of confounders.

        z = sum_i a_i h_i as in ABMIL;  u = softmax over j of (Q z) . (K confounders_j) / sqrt(joint)
        logits = C merge(z, sum_j u_j confounders_j) + f

    It is trained in two stages: train ABMIL, pass the pooled vectors of its training bags to `confounders_of`, and
    train this head with the result. The dictionary is a buffer, `confounder_feat`, saved with the weights.
    `regard.heads.plain.ibmil` is the plain formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        confounders: vectors (count, width) of the first stage; without them there are `count` zero vectors, for
            loading weights.
        count: number of confounders if they are not given; 8 in the authors' runs.
        width: width of the projected instances.
        hidden: width of the scoring layers.
        joint: width of the queries Q and keys K.
        merge: whether the mean confounder is concatenated to the pooled vector, added or subtracted.
        chunk: instances of a block, for bags whose projection does not fit into memory; see `attention_pool`.

    Raises:
        ValueError: the confounders do not have width `width`, or `merge` is unknown; in `forward`, see
            `regard.heads.contract`.

    Example:
        >>> head = IBMIL(384, 2, confounders=torch.rand(8, 128), width=128)
        >>> head(torch.rand(50, 384)).features.shape
        torch.Size([256])
    """

    paper: ClassVar[str] = "arXiv:2303.06873"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        confounders: Float[Tensor, "count width"] | None = None,
        count: int = 8,
        width: int = 512,
        hidden: int = 128,
        joint: int = 128,
        merge: Literal["cat", "add", "sub"] = "cat",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if merge not in ("cat", "add", "sub"):
            raise ValueError(f"merge is {merge!r}; give cat, add or sub")
        found = torch.zeros(count, width) if confounders is None else confounders.detach().clone()
        if found.shape[1] != width:
            raise ValueError(
                f"the confounders have width {found.shape[1]}, but the head has width {width}; they must be equal"
            )
        self.dim_in, self.num_classes, self.merge, self.chunk = dim_in, num_classes, merge, check_chunk(chunk)
        self.confounder_feat: Tensor
        self.register_buffer("confounder_feat", found)
        self.dimreduction = DimReduction(dim_in, width)
        self.attention = GatedAttention(width, hidden)
        self.W_q = nn.Linear(width, joint)
        self.W_k = nn.Linear(width, joint)
        self.classifier = nn.Linear(2 * width if merge == "cat" else width, num_classes)

    def pool(self, bag: Float[Tensor, "bags instances dim"], valid: Bool[Tensor, "bags instances"] | None) -> Pooled:
        """The pooled vector of each bag, and the scores before softmax."""
        return attention_pool(bag, valid, self.dimreduction.fc1, self.attention.scorer, chunk=self.chunk)

    def look_up(self, vectors: Float[Tensor, "bags width"]) -> Float[Tensor, "bags count"]:
        """The weight of each confounder for each bag."""
        similar = self.W_q(vectors) @ self.W_k(self.confounder_feat).t()
        return (similar / math.sqrt(self.W_q.out_features)).softmax(dim=-1)

    def forward(
        self,
        bag: Float[Tensor, "*batch instances dim"],
        valid: Bool[Tensor, "*batch instances"] | None = None,
        *,
        labels: Shaped[Tensor, "..."] | None = None,
        criterion: Criterion = F.cross_entropy,
    ) -> BagOutput:
        """Score the classes. There are no further losses, so `labels` are ignored."""
        given = bag
        bag, valid = as_batch(bag, valid, self.dim_in)
        pooled, scores = self.pool(bag, valid)
        vectors = pooled[:, 0]
        common = self.look_up(vectors) @ self.confounder_feat
        if self.merge == "cat":
            features = torch.cat([vectors, common], dim=1)
        else:
            features = vectors + common if self.merge == "add" else vectors - common
        output = BagOutput(logits=self.classifier(features), attention=scores.softmax(dim=-1), features=features)
        return unbatch(output, given)


def confounders_of(
    vectors: Sequence[Float[Tensor, "width"]] | Float[Tensor, "bags width"], *, count: int = 8, seed: int = 0
) -> Float[Tensor, "count width"]:
    """The confounders of a training set: k-means centres of the pooled vectors of its bags.

    Args:
        vectors: `features` of a first-stage head such as ABMIL, one for each training bag.
        count: number of centres, at most that of the bags.
        seed: seed of the k-means++ initialisation.

    Raises:
        ValueError: there are fewer bags than centres.

    Example:
        >>> confounders_of(torch.tensor([[0.0], [0.2], [9.0]]), count=2).sort(dim=0).values
        tensor([[0.1000],
                [9.0000]])
    """
    points = (vectors if isinstance(vectors, Tensor) else torch.stack(list(vectors))).detach().float()
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} confounders for {len(points)} bags; give 1 to {len(points)}")
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    for _ in range(count - 1):  # k-means++: distant points are more likely
        far = torch.cdist(points, points[chosen]).min(dim=1).values.square().cpu()
        far = far if far.sum() > 0 else torch.ones_like(far)
        chosen.append(int(torch.multinomial(far, 1, generator=generator)))
    centres = points[chosen]
    for _ in range(100):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        members = F.one_hot(nearest, count).to(points.dtype)
        sizes = members.sum(dim=0)[:, None]
        moved = torch.where(sizes > 0, members.t() @ points / sizes.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
