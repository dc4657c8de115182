"""ILRA: low-rank attention between instances through a few learned latents.

Paper: Xiang and Zhang 2023, "Exploring Low-Rank Property in Multiple Instance Learning for Whole Slide Image
Classification", ICLR 2023; as in dazhangyu123/ACMIL@e53d19c architecture/ilra.py.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .contract import BagOutput, Criterion, as_batch, bag_by_bag, unbatch
from .head_pool import check_heads

__all__ = ["ILRA"]


class ILRA(nn.Module):
    """Gated attention blocks between instances X and latents L, then attention pooling by learned seeds S.

        each block: L' = attend(L, X);  X = attend(X, L')
        pooled = attend(S, X);  logits = mean over S of C pooled + f

    Queries, keys and values are projected twice, as in the authors' code. Differs from it: with several latents the
    logits of the pooled vectors are averaged; theirs are not reduced. `regard.heads.plain.ilra` is the plain
    formulation.

    Args:
        dim_in: width of the features.
        num_classes: number of classes.
        width: width of the instances after the first block, a multiple of `heads`.
        heads: heads of each attention.
        layers: number of gated attention blocks.
        latents: number of latents, and of seeds.
        norm: whether each attention has layer norms.

    Raises:
        ValueError: an option is out of range; in `forward`, see `regard.heads.contract`.

    Example:
        >>> output = ILRA(384, 2, width=64)(torch.rand(50, 384))
        >>> output.logits.shape, output.attention.shape
        (torch.Size([2]), torch.Size([1, 50]))
    """

    paper: ClassVar[str] = "https://openreview.net/forum?id=01KmhBsEPFO"

    def __init__(
        self,
        dim_in: int,
        num_classes: int = 2,
        *,
        width: int = 256,
        heads: int = 8,
        layers: int = 2,
        latents: int = 1,
        norm: bool = False,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        if layers < 0 or latents < 1:
            raise ValueError(f"layers is {layers} and latents {latents}; give 0 layers or more, and 1 latent or more")
        self.dim_in, self.num_classes = dim_in, num_classes
        widths = [dim_in, *[width] * layers]
        self.gab_blocks = nn.ModuleList(_Block(widths[i], width, heads, latents, norm) for i in range(layers))
        self.pooling = _Pooling(widths[-1], width, heads, latents, norm)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

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
        return unbatch(bag_by_bag(self._one, bag, valid), given)

    def _one(self, bag: Float[Tensor, "instances dim"], index: int) -> BagOutput:
        instances = bag.to(self.classifier.weight.dtype)
        for block in self.gab_blocks:
            instances = block(instances)
        pooled, weights = self.pooling(instances)
        logits = self.classifier(pooled).mean(dim=0)
        return BagOutput(logits=logits, attention=weights.float(), features=pooled.flatten())


class _Attention(nn.Module):
    """Multi-head attention whose inputs are projected twice, with a gate from the queries."""

    def __init__(self, dim_query: int, dim_key: int, width: int, heads: int, norm: bool, gated: bool) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads)
        self.fc_q = nn.Linear(dim_query, width)
        self.fc_k = nn.Linear(dim_key, width)
        self.fc_v = nn.Linear(dim_key, width)
        self.ln0 = nn.LayerNorm(width) if norm else nn.Identity()
        self.ln1 = nn.LayerNorm(width) if norm else nn.Identity()
        self.fc_o = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.Linear(dim_query, width), nn.SiLU()) if gated else None

    def forward(self, queries: Tensor, keys: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        projected = self.fc_q(queries)
        found, weights = self.multihead_attn(projected, self.fc_k(keys), self.fc_v(keys), need_weights=need_weights)
        found = self.ln0(projected + found)
        found = self.ln1(found + self.fc_o(found).relu())
        return found if self.gate is None else found * self.gate(queries), weights


class _Block(nn.Module):
    """Attention from latents to instances and back, equation 16 of the paper."""

    def __init__(self, dim_in: int, width: int, heads: int, latents: int, norm: bool) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(1, latents, width))
        nn.init.xavier_uniform_(self.latent)
        self.project_forward = _Attention(width, dim_in, width, heads, norm, gated=True)
        self.project_backward = _Attention(dim_in, width, width, heads, norm, gated=True)

    def forward(self, instances: Tensor) -> Tensor:
        latents, _ = self.project_forward(self.latent[0], instances)
        return self.project_backward(instances, latents)[0]


class _Pooling(nn.Module):
    """Attention pooling by learned seeds; the weights are means over the heads."""

    def __init__(self, dim_in: int, width: int, heads: int, seeds: int, norm: bool) -> None:
        super().__init__()
        self.S = nn.Parameter(torch.empty(1, seeds, width))
        nn.init.xavier_uniform_(self.S)
        self.mha = _Attention(width, dim_in, width, heads, norm, gated=False)

    def forward(self, instances: Tensor) -> tuple[Tensor, Tensor]:
        found, weights = self.mha(self.S[0], instances, need_weights=True)
        assert weights is not None
        return found, weights
