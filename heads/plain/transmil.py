"""TransMIL written out for one bag, with every map of attention formed.

Source: Shao et al. 2021, arXiv:2106.00908, algorithm 2; Xiong et al. 2021, arXiv:2102.03902, equations 11 to 14.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import BagOutput
from .layers import Weights, layer_norm, linear

__all__ = ["nystrom_attention", "pseudo_inverse", "transmil"]


def transmil(weights: Weights, bag: Float[Tensor, "instances dim"]) -> BagOutput:
    """Two layers of Nystrom attention, and between them convolutions over the bag laid out as a square.

        T = [class token; ReLU(W bag_i + b); the first instances again, up to a square number]
        T = T + attend_1(LayerNorm(T));  T = T + sum of depthwise convolutions of sides 7, 5, 3 over the square
        T = T + attend_2(LayerNorm(T));  logits = C LayerNorm(T_class) + f

    `attention` is the class token's row in the second layer, clipped at 0 and normalised; a repeated instance counts
    for the original.
    """
    count, side = len(bag), math.ceil(math.sqrt(len(bag)))
    tokens = linear(weights, "_fc1.0", bag).relu()
    tokens = torch.cat([weights["cls_token"][0], tokens, tokens[: side**2 - count]])
    tokens = tokens + nystrom_attention(weights, "layer1.attn", layer_norm(weights, "layer1.norm", tokens))[0]
    planes = tokens[1:].T.reshape(1, -1, side, side)

    def convolve(name: str) -> Tensor:
        kernel = weights[f"pos_layer.{name}.weight"]
        bias = weights[f"pos_layer.{name}.bias"]
        return F.conv2d(planes, kernel, bias, padding=kernel.shape[2] // 2, groups=len(kernel))

    planes = planes + convolve("proj") + convolve("proj1") + convolve("proj2")
    tokens = torch.cat([tokens[:1], planes[0].flatten(1).T])
    mixed, maps = nystrom_attention(weights, "layer2.attn", layer_norm(weights, "layer2.norm", tokens))
    features = layer_norm(weights, "norm", (tokens + mixed)[0])
    row = maps[:, 0, 1:].clamp(min=0)  # heads tokens
    attention = row[:, :count] + F.pad(row[:, count:], (0, 2 * count - side**2))
    attention = attention / attention.sum(dim=1, keepdim=True)
    return BagOutput(logits=linear(weights, "_fc2", features), attention=attention, features=features)


def nystrom_attention(
    weights: Weights, name: str, x: Float[Tensor, "tokens dim"], iterations: int = 6
) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "heads tokens tokens"]]:
    """softmax(Q M_K^T) pinv(softmax(M_Q M_K^T)) softmax(M_Q K^T) V and a convolution of V; the product is given too.

    M_Q and M_K are the landmarks, means of dim / 2 groups of consecutive queries and keys, after zeros before `x`.
    """
    heads, marks, count = len(weights[f"{name}.res_conv.weight"]), x.shape[1] // 2, len(x)
    padded = F.pad(x, (0, 0, -count % marks, 0))
    parts = linear(weights, f"{name}.to_qkv", padded).chunk(3, dim=1)
    query, key, value = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in parts)  # heads tokens channels
    query = query / query.shape[2] ** 0.5
    query_marks, key_marks = (each.unflatten(1, (marks, -1)).mean(dim=2) for each in (query, key))
    maps = (query @ key_marks.mT).softmax(dim=2)
    maps = maps @ pseudo_inverse((query_marks @ key_marks.mT).softmax(dim=2), iterations)
    maps = maps @ (query_marks @ key.mT).softmax(dim=2)
    kernel = weights[f"{name}.res_conv.weight"]
    mixed = maps @ value + F.conv2d(value[None], kernel, padding=(kernel.shape[2] // 2, 0), groups=heads)[0]
    out = linear(weights, f"{name}.to_out.0", mixed.transpose(0, 1).flatten(1))
    return out[-count:], maps[:, -count:, -count:]


def pseudo_inverse(matrix: Float[Tensor, "heads rows rows"], iterations: int) -> Float[Tensor, "heads rows rows"]:
    """Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4 from A^T over its largest row and column sums (equation 11)."""
    found = matrix.mT / (matrix.abs().sum(-1).max() * matrix.abs().sum(-2).max())
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    for _ in range(iterations):
        near = matrix @ found
        found = found @ (13 * eye - near @ (15 * eye - near @ (7 * eye - near))) / 4
    return found
