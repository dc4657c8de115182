"""The network of MHIM's teacher and student: a projection, one of three encoders, and a classifier.

Sources: DearCaat/MHIM-MIL branch v1 modules/mhim.py, datten.py, satten.py, and @9d0c91a modules/mhim.py and
modules/mhim_modules; papers in `regard.heads.mhim`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .dsmil import DualStream
from .layers import init_xavier, weighted_mean
from .mhim_merge import Merge
from .transmil import PPEG, NystromLayer, instance_attention

__all__ = ["Baseline", "Encoded", "Network"]

Baseline = Literal["attn", "selfattn", "dsmil"]

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Encoded(NamedTuple):
    """The output of an encoder.

    Attributes:
        features: one vector, or one for each class.
        attention: weights over the instances, summing to one.
        logits: logits, for an encoder with its own classifier.
    """

    features: Float[Tensor, "*classes width"]
    attention: Float[Tensor, "maps instances"]
    logits: Float[Tensor, "classes"] | None = None


class Network(nn.Module):
    """Projection, dropout, optional merging, encoder, classifier.

    Args:
        dim_in: width of the features.
        num_classes: classes of the bag.
        width: width of the projected instances.
        baseline: the encoder: attention pooling, TransMIL's transformer, or DSMIL.
        activation: activation of the projection: relu, gelu or tanh.
        attention_activation: activation of attention pooling, likewise.
        drop_rate: dropout of the projected instances in training, 0 to below 1.
        merge: the module that merges instances, or None.

    Raises:
        ValueError: an unknown encoder or activation.

    Example:
        >>> network = Network(32, 2, width=16)
        >>> network.classify(network.project(torch.rand(5, 32))).logits.shape
        torch.Size([2])
    """

    def __init__(
        self,
        dim_in: int,
        num_classes: int,
        *,
        width: int = 512,
        baseline: Baseline = "attn",
        activation: str = "gelu",
        attention_activation: str = "relu",
        drop_rate: float = 0.25,
        merge: Merge | None = None,
    ) -> None:
        super().__init__()
        if baseline not in get_args(Baseline):
            raise ValueError(f"the baseline is {baseline!r}; give one of {', '.join(get_args(Baseline))}")
        for name in (activation, attention_activation):
            if name not in _ACTIVATIONS:
                raise ValueError(f"the activation is {name!r}; give one of {', '.join(_ACTIVATIONS)}")
        self.baseline = baseline
        self.feature = nn.Sequential(nn.Linear(dim_in, width), _ACTIVATIONS[activation]())
        self.dp = nn.Dropout(drop_rate)
        self.merge = merge
        self.online_encoder: _Attention | _SelfAttention | _DualStream
        if baseline == "attn":
            self.online_encoder = _Attention(width, attention_activation)
        elif baseline == "selfattn":
            self.online_encoder = _SelfAttention(width)
        else:
            self.online_encoder = _DualStream(width, num_classes)
        self.predictor = nn.Linear(width, num_classes)
        init_xavier(self)
        if baseline == "dsmil":
            self.predictor.requires_grad_(False)  # unused, but in the published files

    def project(self, bag: Float[Tensor, "instances dim"]) -> Float[Tensor, "instances width"]:
        """The projected instances."""
        return self.dp(self.feature(bag.to(self.predictor.weight.dtype)))

    def classify(self, instances: Float[Tensor, "instances width"]) -> Encoded:
        """Encode projected instances and classify them."""
        found = self.online_encoder(instances)
        return found if found.logits is not None else found._replace(logits=self.predictor(found.features))

    def scores(
        self, instances: Float[Tensor, "instances width"], found: Encoded, by_class: bool
    ) -> Float[Tensor, "maps instances"]:
        """The scores of the instances that masks use.

        Args:
            instances: projected instances.
            found: the encoder's output for them.
            by_class: whether scores are class activations, max over c of softmax over c of C_c . (a_i h_i) (version 2),
                or the attention (version 1). For DSMIL they are the highest instance logit in both versions.
        """
        encoder = self.online_encoder
        if isinstance(encoder, _DualStream):
            return encoder.i_classifier(instances).amax(dim=-1)[None]
        if isinstance(encoder, _SelfAttention):
            attention, values, project = encoder.read(instances, of_zeros=not by_class)
            if not by_class:
                return attention
            added = project((values * attention.t()[..., None]).flatten(1))
        elif not by_class:
            return found.attention
        else:
            added = instances * found.attention[0, :, None].to(instances.dtype)
        return (added @ self.predictor.weight.t()).softmax(dim=-1).amax(dim=-1)[None]


class _Attention(nn.Module):
    """Attention pooling without biases."""

    def __init__(self, width: int, activation: str, hidden: int = 128) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.attention = nn.Sequential(
            nn.Linear(width, hidden, bias=False), _ACTIVATIONS[activation](), nn.Linear(hidden, 1, bias=False)
        )

    def forward(self, instances: Tensor) -> Encoded:
        weights = self.attention.attention(instances).float().softmax(dim=0).t()  # type: ignore[operator]
        return Encoded(weighted_mean(weights, instances)[0], weights)


class _SelfAttention(nn.Module):
    """TransMIL's transformer; the instances are padded to a square only for the convolution."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.layer1 = NystromLayer(width, heads=heads, dim_head=width // 8)
        self.layer2 = NystromLayer(width, heads=heads, dim_head=width // 8)
        self.pos_embedding = PPEG(width)

    def forward(self, instances: Tensor) -> Encoded:
        token, rest = self.layer1(self._with_class(instances)).split([1, len(instances)])
        token, weights = self.layer2.first(torch.cat([token, self._convolve(rest)]))
        return Encoded(self.norm(token), instance_attention(weights[:, 1:], len(instances)))

    def read(self, instances: Tensor, *, of_zeros: bool) -> tuple[Tensor, Tensor, nn.Sequential]:
        """Attention of the first layer, its values (instances, heads, channels), and its last projection.

        The code of version 1 takes the first row of the zero-padded sequence, which is that of the class token only if
        there is no padding; version 2 takes that of the class token.
        """
        layer = self.layer1
        tokens = layer.norm(self._with_class(instances))
        return (
            layer.attn.row_weights(tokens, of_zeros=of_zeros)[:, 1:],
            layer.attn.values(tokens)[1:],
            layer.attn.to_out,
        )

    def _with_class(self, instances: Tensor) -> Tensor:
        return torch.cat([self.cls_token[0].to(instances.dtype), instances])

    def _convolve(self, instances: Tensor) -> Tensor:
        count, side = len(instances), math.isqrt(len(instances) - 1) + 1
        grid = torch.cat([instances, instances[: side**2 - count]])
        if side < 7:
            grid, side = F.pad(grid, (0, 0, 0, 49 - side**2)), 7
        return self.pos_embedding(grid.unflatten(0, (side, side))).flatten(0, 1)[:count]


class _DualStream(nn.Module):
    """DSMIL with the mean of the logits of both streams."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.i_classifier = nn.Sequential(nn.Linear(width, num_classes))
        self.b_classifier = DualStream(width, num_classes, nonlinear=True, values=True)

    def forward(self, instances: Tensor) -> Encoded:
        first = self.i_classifier[0]
        assert isinstance(first, nn.Linear)
        found = self.b_classifier(instances[None], None, first)
        return Encoded(found.features[0], found.attention[0], 0.5 * (found.bag_logits + found.max_logits)[0])
