"""InceptionNeXt hosts (timm `MetaNeXt`: inception_next_*): a ConvNeXt with exchangeable token mixers.

Source: Yu et al. 2024, arXiv:2303.16900. Our block comes through timm's `token_mixers` argument: a mixer in
place of the inception depth-wise convolution, a gate after it. With `output_stride` below 32 timm dilates its
convolutions; a mixer stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from timm.models.inception_next import InceptionDWConv2d, MetaNeXt
from torch import Tensor, nn

from .channels_first import ChannelsFirst
from .choices import chosen_stages, is_mixer

__all__ = ["GatedInception", "build_metanext"]


class GatedInception(InceptionDWConv2d):
    """The host's inception convolution, under its own names, and then a gate.

    Args:
        dim: channels.
        gate: the arguments of `ChannelsFirst`.
        convolution: the arguments of the host's convolution.
    """

    def __init__(self, dim: int, *, gate: dict[str, Any], **convolution: Any) -> None:
        super().__init__(dim, **convolution)
        self.gate = ChannelsFirst(dim, **gate, device=convolution.get("device"), dtype=convolution.get("dtype"))

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Convolve, then weigh the image."""
        return self.gate(super().forward(x))


def build_metanext(
    entry: Callable[..., nn.Module],
    plain: MetaNeXt,
    attention: str,
    options: Mapping[str, Any] | None = None,
    stages: Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build an InceptionNeXt with another token mixer; arguments as for `build_vit`, `stages` may choose.

    Raises:
        ValueError: the host has no such stage.
    """
    chosen = chosen_stages(stages, range(len(plain.stages)))
    ours: dict[str, Any] = {"attention": attention, "attention_options": options}
    mixers: list[Callable[..., nn.Module]] = []
    for number, stage in enumerate(plain.stages):
        own = _settings(next(module for module in stage.modules() if isinstance(module, InceptionDWConv2d)))
        if number not in chosen:
            mixers.append(partial(InceptionDWConv2d, **own))
        elif is_mixer(attention):
            mixers.append(partial(_mixer, **ours))
        else:
            mixers.append(partial(GatedInception, gate=ours, **own))
    return entry(token_mixers=mixers, **kwargs)


def _mixer(dim: int, *, dilation: int, **rest: Any) -> ChannelsFirst:
    return ChannelsFirst(dim, **rest)


def _settings(convolution: InceptionDWConv2d) -> dict[str, Any]:
    """The arguments that made this convolution; half a channel more survives timm's rounding down."""
    width = convolution.dwconv_w.out_channels
    return {
        "square_kernel_size": convolution.dwconv_hw.kernel_size[0],
        "band_kernel_size": convolution.dwconv_w.kernel_size[1],
        "branch_ratio": (width + 0.5) / sum(convolution.split_indexes),
    }
