"""Layers that several heads share, with the parameter names of DTFD, AEM and ACMIL.

Sources: hrzhang1123/DTFD-MIL@10964f4 Model/network.py and Model/Attention.py, dazhangyu123/ACMIL@e53d19c
architecture/network.py and architecture/transformer.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .attention_pool import Scorer

__all__ = ["Classifier", "DimReduction", "GatedAttention", "init_xavier", "instance_softmax", "weighted_mean"]


class DimReduction(nn.Module):
    """A linear projection of the instances with a ReLU: ReLU(fc1(x)).

    `attention_pool` uses `fc1` directly and applies the ReLU itself.

    Args:
        dim_in: width of the features.
        width: width of the projected instances.
        bias: whether `fc1` has a bias; the authors use none.

    Example:
        >>> DimReduction(8, 4).fc1.weight.shape
        torch.Size([4, 8])
    """

    def __init__(self, dim_in: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim_in, width, bias=bias)

    def forward(self, x: Float[Tensor, "... dim_in"]) -> Float[Tensor, "... width"]:
        """Project the instances."""
        return self.fc1(x).relu()


class GatedAttention(nn.Module):
    """The scores of gated attention: attention_weights(tanh(attention_V(x)) * sigmoid(attention_U(x))).

    Source: Ilse et al. 2018, arXiv:1802.04712, equations 8 (without the gate) and 9.

    Args:
        width: width of an instance.
        hidden: width of the scoring layers.
        maps: scores of an instance: branches, classes or attention heads.
        gated: whether the tanh is multiplied by a sigmoid gate.

    Example:
        >>> GatedAttention(4)(torch.rand(2, 5, 4)).shape
        torch.Size([2, 1, 5])
    """

    def __init__(self, width: int, hidden: int = 128, maps: int = 1, *, gated: bool = True) -> None:
        super().__init__()
        self.attention_V = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.attention_U = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid()) if gated else None
        self.attention_weights = nn.Linear(hidden, maps)

    @property
    def scorer(self) -> Scorer:
        """The linear layers, for `attention_pool`."""
        value = self.attention_V[0]
        gate = None if self.attention_U is None else self.attention_U[0]
        assert isinstance(value, nn.Linear)
        assert gate is None or isinstance(gate, nn.Linear)
        return Scorer(value, gate, self.attention_weights)

    def forward(self, x: Float[Tensor, "... instances width"]) -> Float[Tensor, "... maps instances"]:
        """Scores of projected instances, before softmax."""
        hidden = self.attention_V(x)
        if self.attention_U is not None:
            hidden = hidden * self.attention_U(x)
        return self.attention_weights(hidden).transpose(-1, -2)


class Classifier(nn.Module):
    """A linear layer with the name `fc`.

    Example:
        >>> Classifier(4, 3)(torch.rand(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... classes"]:
        """Score the classes."""
        return self.fc(x)


def instance_softmax(
    scores: Float[Tensor, "bags maps instances"], valid: Bool[Tensor, "bags instances"] | None
) -> Float[Tensor, "bags maps instances"]:
    """Softmax over the valid instances, in float32 or wider.

    The authors set masked scores to -1e9, which float16 cannot represent.

    Example:
        >>> instance_softmax(torch.zeros(1, 1, 3).half(), torch.tensor([[True, False, True]]))
        tensor([[[0.5000, 0.0000, 0.5000]]])
    """
    wide = scores.float() if scores.itemsize < 4 else scores
    if valid is not None:
        wide = wide.masked_fill(~valid[:, None], -torch.inf)
    return wide.softmax(dim=-1)


def weighted_mean(
    weights: Float[Tensor, "*bags maps instances"], instances: Float[Tensor, "*bags instances width"]
) -> Float[Tensor, "*bags maps width"]:
    """Weighted mean in float32: in a large bag a single weight is too small for half precision.

    Example:
        >>> weighted_mean(torch.full((1, 4), 0.25), torch.ones(4, 2).half())
        tensor([[1., 1.]], dtype=torch.float16)
    """
    return (weights @ instances.to(weights.dtype)).to(instances.dtype)


def init_xavier(module: nn.Module) -> None:
    """Initialise linear layers as CLAM's first release, MHIM and ILRA do: Xavier normal weights and zero biases.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> init_xavier(layer)
        >>> layer.bias.abs().max().item()
        0.0
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
