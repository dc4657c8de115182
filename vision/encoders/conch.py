"""CONCH and CONCH v1.5: a ViT with attention pooling from one learned query.

Sources: Lu et al. 2024, doi:10.1038/s41591-024-02856-4 (mahmoodlab/CONCH@e9c9e5b, `encode_image` without projection and
normalisation) and Ding et al. 2024, arXiv:2411.19666 (MahmoodLab/TITAN, its patch encoder). The parameter names are the
authors', so that their files load; the text tower in CONCH's file is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Conch", "ConchPooler", "ConchPoolerV15", "conch_weights"]


class ConchPooler(nn.Module):
    """CONCH's pooler: PyTorch's multi-head attention from one query to normalised tokens.

    Args:
        dim: width of the query and of what comes out.
        tokens_dim: width of the tokens.
        num_heads: number of heads.
    """

    def __init__(self, dim: int, tokens_dim: int, num_heads: int = 8) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.attn = nn.MultiheadAttention(dim, num_heads, kdim=tokens_dim, vdim=tokens_dim, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(tokens_dim)

    def forward(self, tokens: Float[Tensor, "batch tokens tokens_dim"]) -> Float[Tensor, "batch dim"]:
        """One vector an image."""
        keys = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(query, keys, keys, need_weights=False)[0][:, 0]


class ConchPoolerV15(nn.Module):
    """CONCH v1.5's pooler: the same attention with projections that have no bias.

    Args:
        dim: width of the query and of what comes out.
        tokens_dim: width of the tokens.
        num_heads: number of heads.
    """

    def __init__(self, dim: int, tokens_dim: int, num_heads: int = 8) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.randn(1, dim))
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(tokens_dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(tokens_dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Float[Tensor, "batch tokens tokens_dim"]) -> Float[Tensor, "batch dim"]:
        """One vector an image."""
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        parts = (query, *self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1))
        query, keys, values = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        pooled = F.scaled_dot_product_attention(query, keys, values)  # batch num_heads 1 width
        return self.to_out(pooled.transpose(1, 2).flatten(2))[:, 0]


class Conch(nn.Module):
    """The image tower: a ViT without pooling, the pooler, a layer norm.

    Args:
        version: "1" or "1.5", which differ in the size of the ViT and in the pooler.
        dim: width of the features.
        size: side of the images in pixels, a multiple of 16.
        trunk: keyword arguments of timm's VisionTransformer that differ from the version's.

    Example:
        >>> small = {"embed_dim": 24, "depth": 1, "num_heads": 2}
        >>> Conch("1.5", dim=16, size=32, trunk=small)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 16])
    """

    def __init__(self, version: str, *, dim: int, size: int = 448, trunk: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        own: dict[str, Any] = {"img_size": size, "num_classes": 0, "global_pool": ""}
        if version == "1":
            own |= {"embed_dim": 768, "depth": 12, "num_heads": 12}
        else:
            own |= {"embed_dim": 1024, "depth": 24, "num_heads": 16, "init_values": 1e-6}
        vit: Any = timm.create_model("vit_base_patch16_224", **{**own, **(trunk or {})})
        self.trunk = vit
        pooler = ConchPooler if version == "1" else ConchPoolerV15
        self.attn_pool_contrast = pooler(dim, vit.embed_dim)
        self.ln_contrast = nn.LayerNorm(dim)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One vector an image."""
        return self.ln_contrast(self.attn_pool_contrast(self.trunk.forward_features(images)))


def conch_weights(weights: Mapping[str, Tensor], network: Conch) -> dict[str, Tensor]:
    """The authors' weights by the names of `Conch`: of CONCH the image tower alone, and positions of its size.

    CONCH v1.5 has positions for 14 x 14 patches and resamples them in every call as DINO does (with a scale that is
    0.1 patches too large); here that is done once.

    Args:
        weights: of pytorch_model.bin, or of pytorch_model_vision.bin.
        network: what they are for.
    """
    inside = {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
    found = inside or dict(weights)
    own = ("trunk.", "attn_pool_contrast.", "ln_contrast.")
    found = {name: value for name, value in found.items() if name.startswith(own)}
    positions, wanted = found.get("trunk.pos_embed"), network.trunk.pos_embed
    if positions is not None and positions.shape != wanted.shape and positions.shape[-1] == wanted.shape[-1]:
        old, new = (round((tensor.shape[1] - 1) ** 0.5) for tensor in (positions, wanted))
        grid = positions[:, 1:].float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=(new + 0.1) / old, mode="bicubic")
        found["trunk.pos_embed"] = torch.cat([positions[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)
    return found
