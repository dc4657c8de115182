"""Initialise a restorer as bilinear interpolation instead of noise."""

from __future__ import annotations

import torch
from torch import nn

from .backbones.hat import HAT

__all__ = ["start_as_interpolation"]

#: Factor of the weights that stay random.
_QUIET = 0.1


@torch.no_grad()
def start_as_interpolation(model: nn.Module) -> None:
    """Set the weights of a new `HAT` so that it enlarges by bilinear interpolation, plus a little noise.

    The first features hold the image, twice as many hold it and its negative through the leaky ReLU, convolutions
    before each pixel shuffle interpolate, and the last one takes the difference. Other weights stay random, at a tenth
    of their size where they reach the image. With a scale of 1 only the noise is reduced, since the network adds the
    image itself. This saves the hundreds of updates in which a network learns to reproduce its input.

    Args:
        model: a `HAT` of scale 1, 2, 4 or 8.

    Raises:
        ValueError: another network or scale.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = HAT(scale=2, dim=12, depths=(1,), num_heads=2, window_size=4)
        >>> start_as_interpolation(model)
        >>> flat = torch.full((1, 3, 8, 8), 0.75)
        >>> (model(flat)[..., 4:-4, 4:-4] - 0.75).abs().max().item() < 0.1
        True
    """
    if not isinstance(model, HAT) or model.scale == 3:
        what = f"x{model.scale}" if isinstance(model, HAT) else type(model).__name__
        raise ValueError(f"start interpolation is for a HAT of scale 1, 2, 4 or 8, not for {what}; use random")
    colours = model.in_chans
    _quieten(model.conv_last)
    if model.scale == 1:
        return
    pairs = torch.arange(2 * colours)
    first, before = model.conv_first, model.conv_before_upsample[0]
    assert isinstance(before, nn.Conv2d)
    for conv in (first, before):
        _clear(conv, len(pairs))
    if isinstance(model.conv_after_body, nn.Conv2d):
        _quieten(model.conv_after_body)
    taps = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
    phases = torch.stack([torch.outer(down, right) for down in taps for right in taps])  # 4 3 3
    for conv in (module for module in model.upsample if isinstance(module, nn.Conv2d)):
        _clear(conv, 4 * len(pairs))
        for channel in pairs.tolist():
            conv.weight[4 * channel : 4 * channel + 4, channel] = phases
    model.conv_last.weight[:, : len(pairs)] = 0
    for colour in range(colours):
        first.weight[colour, colour, 1, 1] = 1
        for channel, sign in ((colour, 1), (colours + colour, -1)):
            before.weight[channel, colour, 1, 1] = sign
            model.conv_last.weight[colour, channel, 1, 1] = sign / 1.01  # x and -x leave a leaky rectifier 1.01 x apart


def _quieten(conv: nn.Conv2d) -> None:
    conv.weight.mul_(_QUIET)
    _clear(conv, 0)


def _clear(conv: nn.Conv2d, channels: int) -> None:
    """Set the first outputs to zero; without any, the whole bias."""
    assert conv.bias is not None
    conv.weight[:channels] = 0
    conv.bias[: channels or None] = 0
