"""Interchangeable attention blocks, one in each file, and the table of their names.

Every block has the same interface, so that it works in any host:

- `Block(dim, *, num_heads=..., **own)`: the width first, all else by keyword with the paper's defaults.
  Only blocks with heads have `num_heads`; a host then passes its own number.
- `forward(x)` maps (batch, height, width, dim) to the same shape, for any height and width. Channels last is a
  free view of a `channels_last` NCHW tensor.
- `kind` is `"mixer"` for a block that mixes tokens and can replace attention or a 3x3 convolution, and `"gate"` for
  one that re-weights the output of a mixer and follows it.
- `paper` is its source, e.g. `"arXiv:2202.09741"`.
- `init_weights()` sets the authors' initialisation; hosts call it after their own.
- A block with `set_depth(depth)` receives its index among the blocks of a network, from 0, before `init_weights()`.
- A block with `takes_context = True` has `forward(x, context=None)`: (batch, tokens, dim) further tokens that every
  position may attend to, such as the class token of a ViT.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from ...class_names import class_named, nearest

__all__ = ["ATTENTION", "AttentionBlock", "attention_class", "build_attention"]

#: Name of a block (the same in YAML, command line, code and documents) -> file and class in this folder.
ATTENTION: dict[str, str] = {
    "softmax": "softmax:SoftmaxAttention",
    "halonet": "halonet:HaloAttention",
    "biformer": "biformer:BiLevelRoutingAttention",
    "van": "van:VanAttention",
    "vig": "vig:VigAttention",
    "sparsifiner": "sparsifiner:SparsifinerAttention",
    "ela": "ela:EfficientLocalAttention",
    "hat": "hat:HybridAttention",
    "hat_overlap": "hat_overlap:OverlappingCrossAttention",
}


@runtime_checkable
class AttentionBlock(Protocol):
    """The interface of every block; see the docstring of this module."""

    kind: ClassVar[Literal["mixer", "gate"]]
    paper: ClassVar[str]

    def __call__(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Attend over a grid of tokens."""
        ...

    def init_weights(self) -> None:
        """Set the authors' initialisation."""
        ...


def attention_class(name: str) -> type[Any]:
    """The class of a block by its name.

    Args:
        name: a key of `ATTENTION`, or `package.module:Class` for a custom block.

    Raises:
        ValueError: there is no such block; the nearest name is suggested.

    Example:
        >>> attention_class("van").__name__
        'VanAttention'
    """
    return class_named(name, "attention", ATTENTION, __name__)


def build_attention(
    name: str,
    dim: int,
    options: Mapping[str, Any] | None = None,
    *,
    num_heads: int | None = None,
) -> nn.Module:
    """Build a block by name, with the number of heads of its host if the block has heads.

    Args:
        name: as in `attention_class`.
        dim: width of a token, at least 1.
        options: keyword arguments of the block.
        num_heads: heads of the host. Without it, and without one in `options`, a head has about 32 channels.

    Raises:
        ValueError: an unknown name, or an option that the block does not have.

    Example:
        >>> build_attention("softmax", 96, num_heads=3).num_heads
        3
    """
    cls = attention_class(name)
    chosen = dict(options or {})
    known = [key for key in inspect.signature(cls).parameters if key != "dim"]
    for key in chosen:
        if key not in known:
            raise ValueError(
                f"attention {name!r} has no option {key!r}; {nearest(key, known)}Its options: "
                f"{', '.join(known) or 'none'}"
            )
    if "num_heads" in known and "num_heads" not in chosen:
        chosen["num_heads"] = num_heads or max(n for n in range(1, max(1, dim // 32) + 1) if dim % n == 0)
    return cls(dim, **chosen)
