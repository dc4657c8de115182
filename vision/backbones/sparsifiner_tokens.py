"""Sparse attention over a sequence of tokens, of which some may have been dropped, and the block around it.

Source: Wei et al. 2023, arXiv:2303.13755; lim142857/Sparsifiner@9a11e26, src/models/sparsifiner.py, whose parameter
names are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..attention.mask_predictor import Connections, MaskPredictor

__all__ = ["Left", "SparsifinerBlock", "SparsifinerTokens"]


class Left(NamedTuple):
    """The tokens that remain after some were dropped.

    Attributes:
        patches: how many patches are left in every image.
        dropped: patches dropped that take a share of the class token's softmax though they are not there.
        valid: of all tokens, those left; None where the others are gone.
        positions: indices of the remaining tokens among all; None if all remain.
    """

    patches: int
    dropped: int = 0
    valid: Bool[Tensor, "batch all_tokens"] | None = None
    positions: Int[Tensor, "batch tokens"] | None = None


class SparsifinerTokens(nn.Module):
    """Sparse attention over a sequence: prefix tokens attend to everything, patches to what is predicted.

    Args:
        dim: width of a token, a multiple of `num_heads`.
        num_heads: number of heads.
        tokens: tokens of an image, the prefix included.
        prefix: first tokens, which are not patches.
        qkv_bias: whether queries, keys and values have a bias.
        predictor: arguments of `MaskPredictor`.

    Raises:
        ValueError: `dim` does not divide by `num_heads`.

    Example:
        >>> SparsifinerTokens(48, num_heads=3, tokens=50)(torch.rand(2, 50, 48)).shape
        torch.Size([2, 50, 48])
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        tokens: int = 197,
        prefix: int = 1,
        qkv_bias: bool = True,
        predictor: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide by num_heads {num_heads}")
        self.num_heads, self.prefix = num_heads, prefix
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.mask_predictor = MaskPredictor(tokens, dim // num_heads, **(predictor or {}))

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend."""
        return self.attend(x, left)[0]

    def attend(
        self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch prefix tokens"]]:
        """Attend, and return the attention of the prefix tokens too, as the mean over heads."""
        (query, key, value), options = self._prepare(x, left)
        first, dropped = self.prefix, left.dropped if left else 0
        logits = (query[:, :, :first] * query.shape[-1] ** -0.5) @ key.mT  # batch heads prefix tokens
        if dropped:  # their logits are 0, and so are their values
            share = logits.new_full((*logits.shape[:-1], 1), math.log(dropped))
            weights = torch.cat([logits, share], dim=-1).softmax(dim=-1)[..., :-1]
        else:
            weights = logits.softmax(dim=-1)
        mixed = torch.cat([weights @ value, self.mask_predictor(query[:, :, first:], key, value, **options)], dim=2)
        return self.proj(mixed.transpose(1, 2).flatten(2)), weights.mean(dim=1)

    def connections(self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None) -> Connections:
        """What `forward` keeps of the patches' rows; without the prefix tokens' rows, which are full."""
        (query, key, _), options = self._prepare(x, left)
        return self.mask_predictor.connections(query[:, :, self.prefix :], key, **options)

    def _prepare(self, x: Tensor, left: Left | None) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if left is None:
            return (query, key, value), {}
        predictor = self.mask_predictor
        options: dict[str, Any] = {"budget": min(predictor.budget(len(predictor.proj_n)), left.patches)}
        if left.positions is not None:
            options["tables"] = predictor.proj_n[left.positions], predictor.proj_back_n[left.positions]
        if left.valid is not None:
            options["valid"] = left.valid
            query, key, value = (part * left.valid[:, None, :, None] for part in (query, key, value))
        return (query, key, value), options


class SparsifinerBlock(Block):
    """timm's block with sparse attention, whose branches may be divided by a number (LV-ViT).

    Args:
        dim: width of a token.
        num_heads: number of heads.
        qkv_bias: whether queries, keys and values have a bias.
        tokens: see `SparsifinerTokens`.
        prefix: see `SparsifinerTokens`.
        predictor: see `SparsifinerTokens`.
        skip_lam: what both branches are divided by.
        timm: the other arguments of timm's `Block`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        tokens: int = 197,
        prefix: int = 1,
        predictor: Mapping[str, Any] | None = None,
        skip_lam: float | int = 1,
        qkv_bias: bool = True,
        **timm: Any,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, **timm)
        like = next(self.parameters())
        self.attn = SparsifinerTokens(
            dim, num_heads=num_heads, tokens=tokens, prefix=prefix, qkv_bias=qkv_bias, predictor=predictor
        ).to(device=like.device, dtype=like.dtype)
        self.skip_lam = skip_lam

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch tokens dim"], left: Left | None = None
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch prefix tokens"]]:
        """Mix tokens, then channels; also returns the attention of the prefix tokens."""
        mixed, seen = self.attn.attend(self.norm1(x), left)  # type: ignore[operator]
        x = x + self.drop_path1(self.ls1(mixed)) / self.skip_lam
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))) / self.skip_lam, seen
