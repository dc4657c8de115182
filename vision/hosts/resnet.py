"""ResNet hosts (timm `ResNet`: resnet*, resnext*, wide_resnet*, seresnet* ...) with attention in the blocks.

Our block comes through timm's `block` argument.

- A mixer stands where the 3x3 convolution stood (`conv2`), as in BoTNet, Srinivas et al. 2021,
  arXiv:2101.11605, figure 3; where that convolution had a stride, average pooling follows. In a basic block
  it is the second one.
- A gate joins as in the ELA authors' code (Xu & Wan 2024, arXiv:2403.01123, Xuwei86/ELA_Code): u + gate(u),
  in a bottleneck after relu(bn2(conv2)), in a basic block after bn2.

All other names are timm's, so a host's weights load there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from .channels_first import ChannelsFirst, ResidualChannelsFirst
from .choices import chosen_stages, is_mixer

__all__ = ["AttentionBasicBlock", "AttentionBottleneck", "build_resnet"]


class AttentionBottleneck(Bottleneck):
    """timm's bottleneck (1x1, 3x3, 1x1) with attention in the middle.

    Args:
        args: what timm gives a `Bottleneck`.
        attention: name of the block, as in `build_attention`.
        attention_options: keyword arguments of the block.
        kwargs: what timm gives a `Bottleneck`.

    Raises:
        ValueError: the 3x3 convolution that a mixer would replace changes the width (`block_reduce_first`).

    Example:
        >>> import torch
        >>> block = AttentionBottleneck(64, 16, attention="softmax")
        >>> block(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    def __init__(
        self, *args: Any, attention: str, attention_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if is_mixer(attention):
            self.conv2 = _in_place_of(self.conv2, attention, attention_options)  # type: ignore[assignment]
        else:
            self.act2 = nn.Sequential(self.act2, _gate_after(self.conv2, attention, attention_options))


class AttentionBasicBlock(BasicBlock):
    """timm's basic block (3x3, 3x3) with attention; arguments and errors as for `AttentionBottleneck`.

    Raises:
        ValueError: also for a gate where the host's block has one of its own.

    Example:
        >>> import torch
        >>> block = AttentionBasicBlock(64, 64, attention="softmax")
        >>> block(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    def __init__(
        self, *args: Any, attention: str, attention_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if is_mixer(attention):
            self.conv2 = _in_place_of(self.conv2, attention, attention_options)  # type: ignore[assignment]
        elif self.se is None:
            self.se = _gate_after(self.conv2, attention, attention_options)
        else:
            raise ValueError(
                f"the host's blocks have a {type(self.se).__name__} where {attention!r} would go; "
                "resnet18 and resnet34 have none"
            )


def build_resnet(
    entry: Callable[..., nn.Module],
    plain: ResNet,
    attention: str,
    options: Mapping[str, Any] | None = None,
    stages: Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a ResNet with attention in its blocks; arguments as for `build_vit`, `stages` may choose.

    Raises:
        ValueError: the host's blocks are of an unsupported type, or it has no such stage.
    """
    own = [type(getattr(plain, f"layer{stage}")[0]) for stage in range(1, len(plain.feature_info))]
    ours = {Bottleneck: AttentionBottleneck, BasicBlock: AttentionBasicBlock}
    odd = [block.__name__ for block in own if block not in ours]
    if odd:
        raise ValueError(f"the host's blocks are of an unsupported type ({odd[0]}); use resnet50 or resnext50_32x4d")
    blocks: list[Callable[..., nn.Module]] = list(own)
    for stage in chosen_stages(stages, range(len(own))):
        blocks[stage] = _StageBlock(ours[own[stage]], attention=attention, attention_options=options)
    return entry(block=tuple(blocks), **kwargs)


class _StageBlock(partial):
    """A block with its attention chosen; timm asks a block for its `expansion`."""

    @property
    def expansion(self) -> int:
        return self.func.expansion  # type: ignore[attr-defined]


def _in_place_of(conv: nn.Conv2d, attention: str, options: Mapping[str, Any] | None) -> nn.Sequential:
    """The mixer, and pooling where the convolution had a stride: sizes agree for odd images too."""
    if conv.in_channels != conv.out_channels:
        raise ValueError(
            f"a mixer keeps the width, the host's 3x3 convolution makes {conv.out_channels} channels of "
            f"{conv.in_channels}; use a host without block_reduce_first, such as resnet50"
        )
    stride = conv.stride[0]
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(ChannelsFirst(conv.out_channels, **_like(conv, attention, options)), pool)


def _gate_after(conv: nn.Conv2d, attention: str, options: Mapping[str, Any] | None) -> ResidualChannelsFirst:
    return ResidualChannelsFirst(conv.out_channels, **_like(conv, attention, options))


def _like(conv: nn.Conv2d, attention: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    where = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    return {"attention": attention, "attention_options": options} | where
