"""PoolFormer hosts (timm `MetaFormer`: poolformer_*, poolformerv2_*): four stages, any image size.

Source: Yu et al. 2022, arXiv:2111.11418 and arXiv:2210.13452. Our block comes through timm's `token_mixers`
argument: a mixer in place of the pooling, a gate after it. timm's convformer_* and caformer_* set that
argument themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from timm.models.metaformer import MetaFormer, MetaFormerBlock, Pooling
from torch import Tensor, nn

from .channels_first import ChannelsFirst
from .choices import chosen_stages, is_mixer

__all__ = ["GatedPooling", "TokenMixer", "build_metaformer"]


class TokenMixer(ChannelsFirst):
    """A mixer as MetaFormer calls it.

    Args:
        dim: channels.
        attention: name of the block, as in `build_attention`.
        attention_options: keyword arguments of the block.
        proj_drop: dropout of the outcome in training, 0-1 (the host's `proj_drop_rate`).
        device_and_dtype: passed on.
    """

    def __init__(
        self,
        dim: int,
        *,
        attention: str,
        attention_options: Mapping[str, Any] | None = None,
        proj_drop: float = 0.0,
        **device_and_dtype: Any,
    ) -> None:
        super().__init__(dim, attention=attention, attention_options=attention_options, **device_and_dtype)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Mix the image."""
        return self.proj_drop(super().forward(x))


class GatedPooling(TokenMixer):
    """The host's pooling and then a gate; arguments as for `TokenMixer`."""

    def __init__(
        self, dim: int, *, attention: str, attention_options: Mapping[str, Any] | None = None, **rest: Any
    ) -> None:
        super().__init__(dim, attention=attention, attention_options=attention_options, **rest)
        self.pooling = Pooling()

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Pool, then weigh the image."""
        return super().forward(self.pooling(x))


def build_metaformer(
    entry: Callable[..., nn.Module],
    plain: MetaFormer,
    attention: str,
    options: Mapping[str, Any] | None = None,
    stages: Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a PoolFormer with another token mixer; arguments as for `build_vit`, `stages` may choose.

    Raises:
        ValueError: the host is not a PoolFormer, or has no such stage.
    """
    blocks = [module for module in plain.modules() if isinstance(module, MetaFormerBlock)]
    if not all(isinstance(block.token_mixer, Pooling) for block in blocks):
        raise ValueError("convformer and caformer hosts have their own token mixers; use poolformerv2_s12")
    chosen = chosen_stages(stages, range(len(plain.stages)))
    ours = TokenMixer if is_mixer(attention) else GatedPooling
    return entry(
        token_mixers=[ours if stage in chosen else Pooling for stage in range(len(plain.stages))],
        attention=attention,
        attention_options=options,
        **kwargs,
    )
