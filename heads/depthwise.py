"""The two depthwise convolutions of TransMIL with faster gradients on a CPU.

In PyTorch's depthwise convolutions most of the time is spent on the gradient of the weights. Along a sequence, with one
kernel for all channels of a head, the convolution is computed as a product with a banded matrix, in blocks. Over a
grid, the gradient of the weights is computed as a depthwise convolution of the input with the gradient of the output.
On other devices PyTorch's convolutions are used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["grid_convolution", "sequence_convolution"]

#: Tokens of a block of the banded product: larger blocks have more zeros, smaller ones are more numerous.
_ROWS = 32


def sequence_convolution(
    x: Float[Tensor, "tokens heads channels"], weight: Float[Tensor, "heads 1 kernel 1"], skip: int = 0
) -> Float[Tensor, "kept heads channels"]:
    """Convolve along the tokens with zero padding; the channels of a head share a kernel of odd length.

    Args:
        x: the tokens.
        weight: a kernel for each head.
        skip: number of first tokens, which must be zero, for which no result is returned.

    Example:
        >>> sequence_convolution(torch.ones(4, 1, 2), torch.ones(1, 1, 3, 1))[:, 0, 0]
        tensor([2., 3., 3., 2.])
    """
    weight = weight.to(x.dtype)
    if x.device.type != "cpu":
        padding = (weight.shape[2] // 2, 0)
        planes = F.conv2d(x.permute(1, 0, 2)[None], weight, padding=padding, groups=len(weight))
        return planes[0].permute(1, 0, 2)[skip:]
    return _SequenceConvolution.apply(x, weight[:, 0, :, 0], skip)


def grid_convolution(
    x: Float[Tensor, "height width channels"],
    weight: Float[Tensor, "channels 1 kernel kernel"],
    bias: Float[Tensor, "channels"],
) -> Float[Tensor, "height width channels"]:
    """Convolve each channel over a grid with zero padding; the side of the kernel is odd.

    Example:
        >>> grid_convolution(torch.ones(3, 3, 1), torch.ones(1, 1, 3, 3), torch.zeros(1))[1, 1]
        tensor([9.])
    """
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)  # autocast
    if x.device.type != "cpu":
        return _convolve(x, weight, bias)
    return _GridConvolution.apply(x, weight, bias)


class _SequenceConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, skip: int) -> Tensor:
        ctx.save_for_backward(x, kernels)
        ctx.skip = skip
        return _banded(_padded(x[skip:], kernels.shape[1]), kernels, len(x) - skip)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernels = ctx.saved_tensors
        length = kernels.shape[1]
        x = x[ctx.skip :]
        d_x = F.pad(_banded(_padded(d_out, length), kernels.flip(1), len(x)), (0, 0, 0, 0, ctx.skip, 0))
        padded, outs = _padded(x, length), _padded(d_out, 1)
        blocks = len(outs) // _ROWS
        band = torch.stack(
            [
                torch.bmm(_windows(outs, head, blocks, 1), _windows(padded, head, blocks, length).mT).sum(dim=0)
                for head in range(len(kernels))
            ]
        )  # heads rows rows+length-1
        rows, taps = _band(length, band.device)
        return d_x, band[:, rows, taps].sum(dim=1), None


class _GridConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        d_x = _convolve(d_out, weight.flip(2, 3), None)
        # a copy of the transpose is fast in two dimensions
        planes, d_planes = (each.flatten(0, 1).t().contiguous().unflatten(1, x.shape[:2]) for each in (x, d_out))
        d_weight = F.conv2d(planes[None], d_planes[:, None], padding=weight.shape[-1] // 2, groups=len(weight))
        return d_x, d_weight[0][:, None], d_out.sum(dim=(0, 1))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    planes = x[None].permute(0, 3, 1, 2)  # channels last in memory
    found = F.conv2d(planes, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))
    return found[0].permute(1, 2, 0)


def _padded(x: Tensor, length: int) -> Tensor:
    """Pad with zeros, so that whole blocks and their neighbours can be read."""
    side = length // 2
    return F.pad(x, (0, 0, 0, 0, side, side + -len(x) % _ROWS)).contiguous()


def _windows(padded: Tensor, head: int, blocks: int, length: int) -> Tensor:
    """(blocks, rows + length - 1, channels): a view of every block and the tokens around it that the kernel reads."""
    step, across, _ = padded.stride()
    shape = (blocks, _ROWS + length - 1, padded.shape[-1])
    return padded.as_strided(shape, (_ROWS * step, step, 1), head * across)


def _band(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns of a kernel's taps in the banded matrix of a block."""
    rows = torch.arange(_ROWS, device=device)[:, None].expand(-1, length)
    return rows, rows + torch.arange(length, device=device)


def _banded(padded: Tensor, kernels: Tensor, count: int) -> Tensor:
    heads, length = kernels.shape
    blocks = -(-count // _ROWS)
    band = kernels.new_zeros(heads, _ROWS, _ROWS + length - 1)
    rows, taps = _band(length, band.device)
    band[:, rows, taps] = kernels[:, None].expand(-1, _ROWS, -1)
    out = padded.new_empty(blocks, _ROWS, heads, padded.shape[-1])
    for head in range(heads):
        out[:, :, head] = torch.bmm(band[head].expand(blocks, -1, -1), _windows(padded, head, blocks, length))
    return out.flatten(0, 1)[:count]
